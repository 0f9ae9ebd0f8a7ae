// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"slices"
	"strings"
	"unicode"

	discoveryv1 "k8s.io/api/discovery/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/spelling"
)

// use is how an object is used.
type use int

const (
	useNothing     use = iota
	useCore            // Namespace, Pod, Service, Node or EndpointSlice
	usePolicy          // a NetworkPolicy
	useOldPolicy       // a NetworkPolicy of its first API group
	useTypoPolicy      // certainly meant as a NetworkPolicy, but Kubernetes has no such type
	useOtherPolicy     // a policy of another project
	useTypoCore        // certainly meant as one of these
)

var coreKinds = []string{"Namespace", "Pod", "Service", "Node"}

// The API groups that had NetworkPolicy, with their other kinds.
var policyGroups = map[string][]string{
	networkingv1.GroupName: {"Ingress", "IngressClass", "IPAddress", "ServiceCIDR", "ClusterCIDR"},
	extensionsv1beta1.GroupName: {"Ingress", "Deployment", "DaemonSet", "ReplicaSet", "Scale", "DeploymentRollback",
		"PodSecurityPolicy"},
}

// otherGroups are those of other projects that have policies, each with its subdomains.
var otherGroups = []string{
	"projectcalico.org", "antrea.io", "antrea.tanzu.vmware.com", "cilium.io", "policy.networking.k8s.io",
}

// useOf classifies an object by its type. A misspelt type closes, as a misspelt field does: leaving
// the object out would open pods. selects returns whether the object has a spec.podSelector.
func useOf(t metav1.TypeMeta, selects func() bool) use {
	group, _, _ := strings.Cut(t.APIVersion, "/")
	group = folded(group)
	kind := folded(t.Kind)
	switch {
	case t.Kind == convert.KindPolicy && t.APIVersion == networkingv1.SchemeGroupVersion.String():
		return usePolicy
	case t.Kind == convert.KindPolicy && t.APIVersion == extensionsv1beta1.SchemeGroupVersion.String():
		return useOldPolicy
	case t.APIVersion == "v1" && slices.Contains(coreKinds, t.Kind),
		t.APIVersion == discoveryv1.SchemeGroupVersion.String() && t.Kind == convert.KindSlice:
		return useCore
	case isOther(group):
		if strings.Contains(kind, "policy") {
			return useOtherPolicy
		}
		return useNothing
	case resemblesPolicy(kind):
		return useTypoPolicy
	case strings.Contains(kind, "networkpolicy"):
		return useOtherPolicy
	case policyGroups[group] != nil && !slices.Contains(policyGroups[group], t.Kind) &&
		(strings.Contains(kind, "polic") || selects()):
		return useTypoPolicy
	}
	return coreOrUnused(folded(t.APIVersion), kind)
}

func coreOrUnused(version, kind string) use {
	if version == discoveryv1.SchemeGroupVersion.String() && kind == strings.ToLower(convert.KindSlice) {
		return useTypoCore
	}
	if version != "v1" && version != "core/v1" {
		return useNothing
	}
	for _, k := range coreKinds {
		if strings.ToLower(k) == kind {
			return useTypoCore
		}
	}
	return useNothing
}

func isOther(group string) bool {
	return slices.ContainsFunc(otherGroups, func(g string) bool {
		return group == g ||
			strings.HasSuffix(group, "."+g)
	})
}

// folded returns a text in lower case without blanks.
func folded(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, text)
}

// resemblesPolicy reports whether a kind in lower case can only be NetworkPolicy, misspelt by at
// most two letters, in its plural or its short name.
func resemblesPolicy(kind string) bool {
	kind = strings.NewReplacer("-", "", "_", "").Replace(kind)
	name := strings.ToLower(convert.KindPolicy)
	return kind == "netpol" || kind == "networkpolicies" || spelling.Distance(kind, name) <= 2
}
