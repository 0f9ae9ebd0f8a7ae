// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// addPolicy reads a NetworkPolicy. An unknown field is most often a misspelt constraint, and
// leaving out a constraint opens: "form:" for "from:" would allow every peer. So the part that
// holds the field is closed; with a misspelt type the whole policy.
func (f *file) addPolicy(d *document, h *head) error {
	np := new(networkingv1.NetworkPolicy)
	unknown, err := d.decode(np)
	if err != nil {
		return err
	}
	found, err := d.named(np, convert.KindPolicy)
	if err == nil {
		err = d.meantElsewhere(unknown, convert.KindPolicy)
	}
	if err != nil {
		return err
	}
	key := cluster.Key{Namespace: np.Namespace, Name: np.Name}
	var closed []string
	for _, path := range unknown {
		part, consequence := closePart(&np.Spec, path)
		if consequence == "" {
			found = append(found, unusedField(path, key)...)
			continue
		}
		closed = append(closed, part)
		cure := "correct the spelling or the indentation"
		if name := meantField(path); name != "" {
			cure = "did you mean " + name + "?"
		}
		found = append(found, cluster.Diagnostic{
			Severity: cluster.Error, Kind: convert.KindPolicy, Object: key, Field: path,
			Message: "unknown field: " + consequence, Cure: cure,
		})
	}
	if h.use != usePolicy {
		found = append(found, typeFinding(&np.Spec, h, key))
	}
	converted, more := convert.Policy(np)
	found = append(found, without(more, closed)...)
	for i := range found {
		found[i].Message += d.at(found[i].Field)
	}
	f.policies = append(f.policies, placed[*cluster.Policy]{converted, key, d.origin(), found, unknown})
	return nil
}

// unusedField warns of a field without effect. Older servers print a status.
func unusedField(path string, key cluster.Key) []cluster.Diagnostic {
	if !strings.HasPrefix(path, "metadata.") {
		return nil
	}
	return []cluster.Diagnostic{{
		Severity: cluster.Warning, Kind: convert.KindPolicy, Object: key, Field: path,
		Message: "unknown field, it is not used", Cure: "correct or remove it",
	}}
}

// typeFinding describes the fault in the type of a policy. A policy with a misspelt type isolates
// the pods that it selects and allows nothing.
func typeFinding(s *networkingv1.NetworkPolicySpec, h *head, key cluster.Key) cluster.Diagnostic {
	found := cluster.Diagnostic{
		Severity: cluster.Warning, Kind: convert.KindPolicy, Object: key, Field: "apiVersion",
		Message: "extensions/v1beta1 is served by no supported Kubernetes: read as networking.k8s.io/v1",
		Cure:    "write apiVersion: networking.k8s.io/v1",
	}
	if h.use == useTypoPolicy {
		_, consequence := closeRules(s)
		if h.Kind != convert.KindPolicy {
			found.Field = "kind"
		}
		found.Severity = cluster.Error
		found.Message = fmt.Sprintf("apiVersion %s with kind %s is no type of Kubernetes, NetworkPolicy is meant: %s",
			quoted(h.APIVersion), quoted(h.Kind), consequence)
		found.Cure = "write apiVersion: networking.k8s.io/v1 and kind: NetworkPolicy"
	}
	return found
}

// without drops the diagnostics of conversion about parts that were closed on purpose.
func without(found []cluster.Diagnostic, closed []string) []cluster.Diagnostic {
	return slices.DeleteFunc(found, func(d cluster.Diagnostic) bool {
		return slices.ContainsFunc(closed, func(part string) bool { return strings.HasPrefix(d.Field, part) })
	})
}

var (
	rulePart = regexp.MustCompile(`^spec\.(ingress|egress)\[(\d+)\]\.`)
	listPart = regexp.MustCompile(`^(from|to|ports)\[(\d+)\]\.`)
)

// closePart makes the smallest part that holds the field match nothing. It returns the path that
// conversion will report, and the consequence in words; neither for a field without effect.
func closePart(s *networkingv1.NetworkPolicySpec, path string) (part, consequence string) {
	if m := rulePart.FindStringSubmatch(path); m != nil {
		i, _ := strconv.Atoi(m[2])
		return closeRule(s, m[1], i, m[0], path[len(m[0]):])
	}
	switch {
	case strings.HasPrefix(path, "spec.podSelector."):
		// Conversion isolates the namespace if it cannot read the subject.
		s.PodSelector = unreadable()
		return "spec.podSelector", "the policy isolates every pod of its namespace and allows nothing"
	case strings.HasPrefix(path, "metadata.") || path == "status" || strings.HasPrefix(path, "status."):
		// Name and namespace were read.
		return "", ""
	}
	return closeRules(s)
}

func closeRules(s *networkingv1.NetworkPolicySpec) (part, consequence string) {
	s.Ingress, s.Egress = nil, nil
	if len(s.PolicyTypes) == 0 {
		s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
		return "spec.ingress", "the policy isolates both directions and allows nothing"
	}
	return "spec.ingress", "the policy allows nothing"
}

func closeRule(s *networkingv1.NetworkPolicySpec, direction string, i int, rule, rest string) (part,
	consequence string) {
	if (direction == "ingress" && i >= len(s.Ingress)) || (direction == "egress" && i >= len(s.Egress)) {
		return rule, "the policy allows nothing" // another unknown field closed it already
	}
	peers, ports := ruleLists(s, direction, i)
	m := listPart.FindStringSubmatch(rest)
	if m == nil {
		*peers = []networkingv1.NetworkPolicyPeer{{}}
		return rule, "this rule matches nothing"
	}
	j, _ := strconv.Atoi(m[2])
	if m[1] != "ports" && j >= len(*peers) {
		return rule, "this rule matches nothing" // likewise
	}
	if m[1] == "ports" {
		(*ports)[j] = networkingv1.NetworkPolicyPort{Port: &intstr.IntOrString{}}
		return rule + strings.TrimSuffix(m[0], "."), "this port entry matches nothing"
	}
	(*peers)[j] = networkingv1.NetworkPolicyPeer{}
	return rule + strings.TrimSuffix(m[0], "."), "this peer matches nothing"
}

func ruleLists(s *networkingv1.NetworkPolicySpec, direction string, i int) (
	*[]networkingv1.NetworkPolicyPeer, *[]networkingv1.NetworkPolicyPort,
) {
	if direction == "egress" {
		return &s.Egress[i].To, &s.Egress[i].Ports
	}
	return &s.Ingress[i].From, &s.Ingress[i].Ports
}

// unreadable is a selector that conversion refuses.
func unreadable() metav1.LabelSelector {
	return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Operator: "unknown field"}}}
}
