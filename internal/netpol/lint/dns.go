// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
)

// dnsPorts are the ports on which DNS servers listen: policies mean the port of the pod,
// and the DNS pods of OpenShift have 5353 behind their Service.
func dnsPorts() []uint16 { return []uint16{53, 5353} }

// withoutDNS is a pod whose egress policies allow something, and no DNS by protocols.
type withoutDNS struct {
	pod       *cluster.Pod
	protocols []cluster.Protocol
}

// withoutDNS returns the pods that may not ask a DNS server, by the first policy with
// egress rules that selects them. Policies add up, so all that select a pod are read. A pod
// that may open no connection at all needs no names.
func (c *checker) withoutDNS() map[cluster.Key][]withoutDNS {
	type state struct {
		first    *cluster.Policy
		udp, tcp bool
	}
	states := map[*cluster.Pod]*state{}
	for _, p := range c.snap.Policies {
		if len(p.Egress) == 0 {
			continue
		}
		udp, tcp := c.allowsDNS(p.Egress, cluster.UDP), c.allowsDNS(p.Egress, cluster.TCP)
		for _, pod := range selected(c.pods[p.Key.Namespace], p.Subject) {
			if states[pod] == nil {
				states[pod] = &state{first: p}
			}
			states[pod].udp, states[pod].tcp = states[pod].udp || udp, states[pod].tcp || tcp
		}
	}
	found := map[cluster.Key][]withoutDNS{}
	for _, pod := range c.snap.Pods {
		if s := states[pod]; s != nil && !(s.udp && s.tcp) {
			w := withoutDNS{pod: pod}
			if !s.udp {
				w.protocols = append(w.protocols, cluster.UDP)
			}
			if !s.tcp {
				w.protocols = append(w.protocols, cluster.TCP)
			}
			found[s.first.Key] = append(found[s.first.Key], w)
		}
	}
	return found
}

// allowsDNS reports whether a rule allows DNS to anybody. Peers that are not there are
// another question, and so is a name that no pod declares.
func (c *checker) allowsDNS(rules []cluster.Rule, protocol cluster.Protocol) bool {
	return slices.ContainsFunc(rules, func(r cluster.Rule) bool {
		return (r.Peers.Any || len(r.Peers.List) > 0) && (r.Ports.Any ||
			slices.ContainsFunc(r.Ports.List, func(p cluster.Port) bool {
				return p.Protocol == protocol && (p.Any || p.Name != "" && c.mayBeDNS(p) || p.Name == "" && hasDNS(p))
			}))
	})
}

func hasDNS(p cluster.Port) bool {
	return slices.ContainsFunc(dnsPorts(), func(n uint16) bool { return p.First <= n && n <= p.Last })
}

// mayBeDNS reports whether a named port is a port of DNS on some pod, or on no pod at all.
func (c *checker) mayBeDNS(p cluster.Port) bool {
	declared := false
	for _, pod := range c.snap.Pods {
		for _, n := range pod.NamedPorts() {
			if n.Name == p.Name && n.Protocol == p.Protocol {
				if declared = true; slices.Contains(dnsPorts(), n.Port) {
					return true
				}
			}
		}
	}
	return !declared
}

// noDNS says which pods of a policy may not ask a DNS server.
func (c *checker) noDNS(p *cluster.Policy) {
	byProtocols := map[string][]string{}
	for _, w := range c.dns[p.Key] {
		var words []string
		for _, protocol := range w.protocols {
			words = append(words, cluster.Port{Protocol: protocol, First: dnsPorts()[0], Last: dnsPorts()[0]}.String())
		}
		text := strings.Join(words, " and ")
		byProtocols[text] = append(byProtocols[text], w.pod.Key.Name)
	}
	for _, text := range []string{"udp:53 and tcp:53", "udp:53", "tcp:53"} {
		names := byProtocols[text]
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		effect := "names of Services are not found"
		if text == "tcp:53" {
			effect = "long answers of DNS, which need TCP, are not found"
		}
		c.say(NoDNS, "spec.egress", fmt.Sprintf("no policy allows %s for %s: %s", text, some(names), effect),
			"allow UDP and TCP 53 to the cluster's DNS pods, if these pods ask for names")
	}
}

// some names a few of a list.
func some(names []string) string {
	text := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
