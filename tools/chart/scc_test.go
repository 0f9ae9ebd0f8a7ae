// SPDX-License-Identifier: Apache-2.0

package main

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// constraints are the fields of OpenShift's SecurityContextConstraints that the
// chart uses. Its own module has no release with today's fields.
type constraints struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	AllowHostDirVolumePlugin bool `json:"allowHostDirVolumePlugin"`
	AllowHostIPC             bool `json:"allowHostIPC"`
	AllowHostNetwork         bool `json:"allowHostNetwork"`
	AllowHostPID             bool `json:"allowHostPID"`
	AllowHostPorts           bool `json:"allowHostPorts"`
	AllowPrivilegeEscalation bool `json:"allowPrivilegeEscalation"`
	AllowPrivilegedContainer bool `json:"allowPrivilegedContainer"`
	ReadOnlyRootFilesystem   bool `json:"readOnlyRootFilesystem"`

	AllowedCapabilities      []corev1.Capability `json:"allowedCapabilities"`
	DefaultAddCapabilities   []corev1.Capability `json:"defaultAddCapabilities"`
	RequiredDropCapabilities []corev1.Capability `json:"requiredDropCapabilities"`

	RunAsUser          strategy `json:"runAsUser"`
	SELinuxContext     strategy `json:"seLinuxContext"`
	FSGroup            strategy `json:"fsGroup"`
	SupplementalGroups strategy `json:"supplementalGroups"`

	SeccompProfiles []string `json:"seccompProfiles"`
	Volumes         []string `json:"volumes"`
	Users           []string `json:"users"`
	Groups          []string `json:"groups"`
}

type strategy struct {
	Type string `json:"type"`
}
