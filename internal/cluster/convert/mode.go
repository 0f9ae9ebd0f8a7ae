// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// audit reads the mode of a policy. What is no mode enforces.
func (r *reader) audit(np *networkingv1.NetworkPolicy) bool {
	text, given := np.Annotations[cluster.ModeAnnotation]
	switch {
	case !given, text == cluster.ModeEnforce:
		return false
	case text == cluster.ModeAudit:
		return true
	}
	r.warn(fmt.Sprintf("metadata.annotations[%s]", cluster.ModeAnnotation),
		fmt.Sprintf("%.40q is no mode: the policy is enforced", text),
		"write "+cluster.ModeAudit+" or "+cluster.ModeEnforce)
	return false
}
