// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// mode reads the mode of a policy, and whether it has one of its own. What is no mode enforces.
func (r *reader) mode(np *networkingv1.NetworkPolicy) (audit, own bool) {
	text, given := np.Annotations[cluster.ModeAnnotation]
	switch {
	case !given, text == cluster.ModeEnforce:
		return false, given
	case text == cluster.ModeAudit:
		return true, true
	}
	r.warn(fmt.Sprintf("metadata.annotations[%s]", cluster.ModeAnnotation),
		fmt.Sprintf("%.40q is no mode: the policy is enforced", text),
		"write "+cluster.ModeAudit+" or "+cluster.ModeEnforce)
	return false, true
}

// modeOf reads the mode of a namespace: what is none stays in quotes.
func modeOf(n *corev1.Namespace) string {
	text, given := n.Annotations[cluster.ModeAnnotation]
	if !given || text == cluster.ModeAudit || text == cluster.ModeEnforce {
		return text
	}
	return fmt.Sprintf("%.40q", text)
}
