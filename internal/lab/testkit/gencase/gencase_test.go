// SPDX-License-Identifier: Apache-2.0

package gencase_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/gencase"
)

func TestACaseIsAFunctionOfItsSeed(t *testing.T) {
	if diff := cmp.Diff(text(t, gencase.Case(7, 5)), text(t, gencase.Case(7, 5))); diff != "" {
		t.Error(diff)
	}
	if text(t, gencase.Case(7, 5)) == text(t, gencase.Case(8, 5)) {
		t.Error("two seeds gave the same case")
	}
}

// text is the case as a file has it; the matrices, which nobody has filled in
// yet, are filled with unknown cells.
func text(t *testing.T, c cases.Case) string {
	t.Helper()
	var b bytes.Buffer
	for _, s := range c.Steps {
		for i := range s.Probes {
			for range s.Endpoints {
				s.Probes[i].Expected = append(s.Probes[i].Expected, string(bytes.Repeat([]byte{cases.NotObserved}, len(s.Endpoints))))
			}
		}
		if err := json.NewEncoder(&b).Encode(s); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestCasesCanBeWrittenAndRead(t *testing.T) {
	for seed := range uint64(50) {
		want := text(t, gencase.Case(seed, 3))
		list, err := cases.Read(bytes.NewBufferString(want))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if len(list) != 1 {
			t.Fatalf("seed %d: read back as %d cases", seed, len(list))
		}
		for i := range list[0].Steps {
			for j := range list[0].Steps[i].Probes {
				list[0].Steps[i].Probes[j].Expected = nil
			}
		}
		if diff := cmp.Diff(want, text(t, list[0])); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

// The cases hold what they are made for. The seeds are fixed.
func TestEverythingOccurs(t *testing.T) {
	found := map[string]int{}
	for seed := range uint64(100) {
		for _, s := range gencase.Case(seed, 5).Steps {
			list := map[string]bool{}
			look(s, list)
			for name := range list {
				found[name]++
			}
		}
	}
	for _, name := range features() {
		if found[name] < 5 {
			t.Errorf("%q occurs in %d steps", name, found[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !slices.Contains(features(), name) {
			t.Errorf("%q is not in the list of features", name)
		}
	}
}

func features() []string {
	return []string{
		"IPv4 only", "IPv6 only", "both families", "pod of one family in a cluster of both",
		"pod: finished", "pod: terminating", "pod: without address", "pod: address of a finished pod",
		"pod: a name for two ports", "pod: a name with another number on another pod", "pod: port without name",
		"pods: same labels in two namespaces", "pods: names that join to one text", "policies: names that join to one text",
		"policies: several on one namespace", "label: empty value",
		"subject: all", "subject: some", "types: absent", "types: Ingress", "types: Egress", "types: Sideways",
		"rules: none", "rule: any peer", "rule: any port", "rule: many ports", "rule: many peers",
		"operator In", "operator NotIn", "operator Exists", "operator DoesNotExist", "operator Like", "matchLabels", "value: empty",
		"peer: pods", "peer: namespaces", "peer: pods in namespaces", "peer: empty", "peer: block",
		"block: /0", "block: one address", "block: host bits", "block: bad", "block: except inside", "block: except outside",
		"block: except covers", "block: pod", "block: node", "block: host outside", "block: overlaps another",
		"port: protocol absent", "port: TCP", "port: UDP", "port: SCTP", "port: tcp", "port: any number", "port: name", "port: range",
		"port: bad range", "port: zero", "probe TCP", "probe UDP", "probe SCTP",
	}
}

func look(s *cases.Step, found map[string]bool) {
	lookAtPods(s, found)
	lookAtNames(s, found)
	for _, p := range s.Probes {
		found["probe "+p.Protocol] = true
	}
	var blocks []netip.Prefix
	for i := range s.Policies {
		spec := &s.Policies[i].Spec
		found[either(len(spec.PodSelector.MatchLabels)+len(spec.PodSelector.MatchExpressions) == 0, "subject: all", "subject: some")] = true
		lookAtSelector(&spec.PodSelector, found)
		found["types: absent"] = found["types: absent"] || len(spec.PolicyTypes) == 0
		for _, pt := range spec.PolicyTypes {
			found["types: "+string(pt)] = true
		}
		found["rules: none"] = found["rules: none"] || len(spec.Ingress)+len(spec.Egress) == 0
		for _, r := range spec.Ingress {
			blocks = append(blocks, lookAtRule(s, r.From, r.Ports, found)...)
		}
		for _, r := range spec.Egress {
			blocks = append(blocks, lookAtRule(s, r.To, r.Ports, found)...)
		}
	}
	for i, b := range blocks {
		if slices.ContainsFunc(blocks[:i], b.Overlaps) {
			found["block: overlaps another"] = true
		}
	}
	for name, is := range found {
		if !is {
			delete(found, name)
		}
	}
}

func either(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func lookAtSelector(s *metav1.LabelSelector, found map[string]bool) {
	if s == nil {
		return
	}
	for _, v := range s.MatchLabels {
		found["matchLabels"] = true
		found["value: empty"] = found["value: empty"] || v == ""
	}
	for _, e := range s.MatchExpressions {
		found["operator "+string(e.Operator)] = true
	}
}

func lookAtRule(s *cases.Step, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, found map[string]bool) (blocks []netip.Prefix) {
	found["rule: any peer"] = found["rule: any peer"] || len(peers) == 0
	found["rule: any port"] = found["rule: any port"] || len(ports) == 0
	found["rule: many peers"] = found["rule: many peers"] || len(peers) > 8
	found["rule: many ports"] = found["rule: many ports"] || len(ports) > 8
	for _, p := range peers {
		lookAtSelector(p.PodSelector, found)
		lookAtSelector(p.NamespaceSelector, found)
		switch {
		case p.IPBlock != nil:
			found["peer: block"] = true
			blocks = append(blocks, lookAtBlock(s, p.IPBlock, found)...)
		case p.PodSelector != nil && p.NamespaceSelector != nil:
			found["peer: pods in namespaces"] = true
		case p.PodSelector != nil:
			found["peer: pods"] = true
		case p.NamespaceSelector != nil:
			found["peer: namespaces"] = true
		default:
			found["peer: empty"] = true
		}
	}
	for _, p := range ports {
		lookAtPort(p, found)
	}
	return blocks
}
