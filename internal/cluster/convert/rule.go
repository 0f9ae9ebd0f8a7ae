// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// directions applies the default of policyTypes. The API: "policies that
// contain an egress section are assumed to affect egress, and all policies
// (whether or not they contain an ingress section) are assumed to affect
// ingress." The default applies when the list is absent or empty, and an empty
// egress list counts as no section.
func (r *reader) directions(s *networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(s.PolicyTypes) == 0 {
		r.unlisted("spec.egress", "egress", "Egress", s.Egress != nil && len(s.Egress) == 0)
		return true, len(s.Egress) > 0
	}
	understood := true
	for i, t := range s.PolicyTypes {
		// The API accepts the exact spelling only. A direction in another case is certainly meant,
		// so it is isolated.
		ingress = ingress || strings.EqualFold(string(t), string(networkingv1.PolicyTypeIngress))
		egress = egress || strings.EqualFold(string(t), string(networkingv1.PolicyTypeEgress))
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			understood = false
			r.fail(fmt.Sprintf("spec.policyTypes[%d]", i), fmt.Sprintf("unknown policy type %q: "+
				"the policy isolates ingress, and egress if that is named or has rules", t),
				"write Ingress or Egress")
		}
	}
	if !understood {
		// The unknown word might stand for an isolation. So the policy also isolates the directions
		// that it would isolate without policyTypes: rules show that their direction is meant.
		return true, egress || len(s.Egress) > 0
	}
	r.unused("spec.ingress", "Ingress", !ingress && len(s.Ingress) > 0)
	r.unused("spec.egress", "Egress", !egress && len(s.Egress) > 0)
	r.unlisted("spec.ingress", "ingress", "Ingress", !ingress && s.Ingress != nil && len(s.Ingress) == 0)
	r.unlisted("spec.egress", "egress", "Egress", !egress && s.Egress != nil && len(s.Egress) == 0)
	return ingress, egress
}

// unlisted warns of an empty list, which looks as if it denied everything. Only text that
// a person wrote has one: the API server does not keep it.
func (r *reader) unlisted(field, direction, word string, unlisted bool) {
	if unlisted {
		r.warn(field, "the empty list denies nothing: policyTypes does not list "+word+
			", so "+direction+" is not isolated",
			"add "+word+" to spec.policyTypes, or remove the list")
	}
}

func (r *reader) unused(field, direction string, unused bool) {
	if unused {
		r.warn(field, "policyTypes does not list "+direction+": these rules mean nothing",
			"add "+direction+" to spec.policyTypes, or remove the rules")
	}
}

// rule is a rule of either direction.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func ingressRules(list []networkingv1.NetworkPolicyIngressRule) []rule {
	rules := make([]rule, len(list))
	for i, r := range list {
		rules[i] = rule{r.From, r.Ports}
	}
	return rules
}

func egressRules(list []networkingv1.NetworkPolicyEgressRule) []rule {
	rules := make([]rule, len(list))
	for i, r := range list {
		rules[i] = rule{r.To, r.Ports}
	}
	return rules
}

// rules reads the rules of one direction; peers is the name of their peer list.
func (r *reader) rules(field, peers string, list []rule) []cluster.Rule {
	var rules []cluster.Rule
	r.each(field, len(list), func(i int) {
		rules = append(rules, cluster.Rule{
			Index: i,
			Peers: r.peers("."+peers, list[i].peers),
			Ports: r.ports(".ports", list[i].ports),
		})
	})
	return rules
}
