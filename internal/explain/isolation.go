// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Isolation says which policies apply to a pod, and what they allow.
type Isolation struct {
	Pod       cluster.Key  `json:"pod"`
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"`
	// Network is false for a pod on the network of its node, or without one: no policy
	// applies to it.
	Network bool     `json:"network"`
	Ingress Selected `json:"ingress"`
	Egress  Selected `json:"egress"`
}

// Selected are the policies of one direction in the namespace of a pod.
type Selected struct {
	// Policies select the pod. It is isolated if there are any.
	Policies []PolicyRules `json:"policies"`
	// Others do not select it.
	Others []Other `json:"others,omitempty"`
}

// PolicyRules are the rules of a policy in one direction.
type PolicyRules struct {
	Policy cluster.Key `json:"policy"`
	Rules  []RuleText  `json:"rules"`
}

// RuleText is a rule in words.
type RuleText struct {
	// Path is the field of the rule, as in spec.ingress[0].
	Path  string   `json:"path"`
	Peers []string `json:"peers"`
	Ports []string `json:"ports"`
	// Pods is how many pods its peers select now.
	Pods int `json:"pods"`
}

// Isolation returns what applies to a pod. The error is ErrUnknownPod.
func (c *Cluster) Isolation(key cluster.Key) (*Isolation, error) {
	pod := c.pods[key]
	if pod == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownPod, key)
	}
	i := &Isolation{Pod: key, Node: pod.Node, Addresses: pod.IPs, Network: pod.Networked()}
	if !pod.HostNetwork {
		i.Ingress, i.Egress = c.selected(program.Ingress, pod), c.selected(program.Egress, pod)
	}
	return i, nil
}

// Isolated reports in which directions policies isolate the pod. Those in audit mode do not.
func (c *Cluster) Isolated(pod *cluster.Pod) (ingress, egress bool) {
	if !pod.Networked() {
		return false, false
	}
	in, _ := c.selecting(program.Ingress, pod)
	out, _ := c.selecting(program.Egress, pod)
	return len(in) > 0, len(out) > 0
}

func (c *Cluster) selected(d program.Direction, pod *cluster.Pod) Selected {
	isolating, others := c.selecting(d, pod)
	s := Selected{Policies: []PolicyRules{}, Others: others}
	for _, p := range isolating {
		rules := PolicyRules{Policy: p.Key, Rules: []RuleText{}}
		for _, r := range rulesOf(p, d) {
			rules.Rules = append(rules.Rules, c.words(d, p, r))
		}
		s.Policies = append(s.Policies, rules)
	}
	return s
}

// words says what a rule means.
func (c *Cluster) words(d program.Direction, p *cluster.Policy, r cluster.Rule) RuleText {
	text := RuleText{Path: ref(d, program.Origin{Policy: p.Key.String(), Index: r.Index}).Path,
		Peers: []string{}, Ports: []string{}, Pods: c.count(p, r.Peers)}
	if r.Peers.Any {
		text.Peers = append(text.Peers, "everything")
	}
	for _, peer := range r.Peers.List {
		text.Peers = append(text.Peers, plain(peerWords(p, peer)))
	}
	if r.Ports.Any {
		text.Ports = append(text.Ports, "every port")
	}
	for _, port := range r.Ports.List {
		text.Ports = append(text.Ports, plain(port.String()))
	}
	return text
}

// count returns how many pods with a network of their own the peers select.
func (c *Cluster) count(p *cluster.Policy, peers cluster.Peers) (n int) {
	for _, pod := range c.snapshot.Pods {
		if pod.Networked() && (peers.Any || c.among(p, peers.List, pod)) {
			n++
		}
	}
	return n
}

func (c *Cluster) among(p *cluster.Policy, peers []cluster.Peer, pod *cluster.Pod) bool {
	for _, peer := range peers {
		switch {
		case peer.Block != nil:
			for _, a := range pod.IPs {
				if peer.Block.Contains(a) {
					return true
				}
			}
		case c.namespaceMiss("", p, peer, pod.Key.Namespace) == "" && peer.Pods.Matches(pod.Labels):
			return true
		}
	}
	return false
}

func peerWords(p *cluster.Policy, peer cluster.Peer) string {
	if b := peer.Block; b != nil {
		except := make([]string, len(b.Except))
		for i, e := range b.Except {
			except[i] = e.String()
		}
		if len(except) == 0 {
			return b.CIDR.String()
		}
		return fmt.Sprintf("%s except %s", b.CIDR, strings.Join(except, ", "))
	}
	where := "of namespace " + p.Key.Namespace
	switch sel := peer.Namespaces; {
	case sel == nil:
	case !sel.Valid():
		where = "of namespaces that could not be understood"
	case sel.MatchesAll():
		where = "of every namespace"
	default:
		where = "of namespaces with " + sel.Text()
	}
	return podWords(peer.Pods) + " " + where
}

func podWords(s cluster.Selector) string {
	switch {
	case !s.Valid():
		return "pods of a selector that could not be understood,"
	case s.MatchesAll():
		return "every pod"
	}
	return "pods with " + s.Text()
}
