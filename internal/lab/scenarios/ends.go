// SPDX-License-Identifier: Apache-2.0

package scenarios

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/proxy/oracle"
)

// Asked is a packet with its ends found.
type Asked struct {
	Node     *Node // that judges
	Src, Dst netip.Addr
	// FromNode is true if the client is the node that judges.
	FromNode bool
}

// Ask finds the ends of a packet.
func (w *World) Ask(p Packet) (Asked, error) {
	var a Asked
	client, at, err := w.end(p.From)
	if err != nil {
		return a, err
	}
	if p.At != "" {
		at = p.At
	}
	if a.Node = w.node(at); a.Node == nil {
		return a, fmt.Errorf("no node %q", at)
	}
	a.FromNode = p.From == a.Node.Name
	target := w.node(p.To)
	if target == nil {
		if a.Dst, err = netip.ParseAddr(p.To); err != nil {
			return a, fmt.Errorf("%q is neither a node nor an address", p.To)
		}
	}
	if a.Src = p.Source; !a.Src.IsValid() {
		v4 := target != nil || a.Dst.Is4()
		if a.Src, err = client.of(v4); err != nil {
			return a, err
		}
	}
	if target != nil {
		a.Dst, err = target.of(a.Src.Is4())
	}
	return a, err
}

// of returns the address of a family.
func (h Host) of(v4 bool) (netip.Addr, error) {
	for _, a := range h.IPs {
		if a.Is4() == v4 {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address of the family", h.Name)
}

func (w *World) node(name string) *Node {
	for i := range w.Nodes {
		if w.Nodes[i].Name == name {
			return &w.Nodes[i]
		}
	}
	return nil
}

// end returns an end and the node that it is on, which for hosts outside is the first one.
func (w *World) end(name string) (Host, string, error) {
	if n := w.node(name); n != nil {
		return n.Host, name, nil
	}
	for _, p := range w.Pods {
		if p.Name == name {
			return p.Host, p.Node, nil
		}
	}
	for _, h := range w.Outside {
		if h.Name == name {
			return h, w.Nodes[0].Name, nil
		}
	}
	return Host{}, "", fmt.Errorf("no end %q", name)
}

// Name returns how scenarios write a backend.
func (w *World) Name(to netip.AddrPort, masqueraded bool) string {
	name := to.Addr().String()
	for _, h := range w.hosts() {
		if slices.Contains(h.IPs, to.Addr()) {
			name = h.Name
		}
	}
	text := fmt.Sprintf("%s:%d", name, to.Port())
	if masqueraded {
		text += " masqueraded"
	}
	return text
}

func (w *World) hosts() (list []Host) {
	for _, n := range w.Nodes {
		list = append(list, n.Host)
	}
	for _, p := range w.Pods {
		list = append(list, p.Host)
	}
	return append(list, w.Outside...)
}

// Settings returns the settings of a node in a scenario.
func (w *World) Settings(s *Scenario, n *Node) oracle.Settings {
	own := slices.Concat(n.IPs, s.Settings.Addresses)
	set := oracle.Settings{Node: n.Name, OwnAddresses: own, NodePortAddresses: own, ServiceRanges: w.ServiceRanges,
		NodePods: n.PodRanges, MasqueradeAll: s.Settings.MasqueradeAll, Strict: s.Settings.Strict,
		ExternalRanges: s.Settings.ExternalRanges, LoadBalancerRanges: s.Settings.LoadBalancerRanges}
	for _, n := range w.Nodes {
		if !s.Settings.PodsUnknown {
			set.ClusterPods = append(set.ClusterPods, n.PodRanges...)
		}
	}
	return set
}

// Line writes an answer as scenarios do.
func (w *World) Line(a oracle.Answer) string {
	if a.Verdict != oracle.Forward {
		return a.Verdict.String()
	}
	var list []string
	for _, b := range a.Backends {
		list = append(list, w.Name(b.To, !b.SourceKept))
	}
	return line(list, a.Sticky)
}

// Expected returns the answer of a packet in one line: the backends sorted and with commas, or reject,
// drop or not ours; with the time of affinity.
func (p Packet) Expected() string {
	if len(p.Goes) == 0 {
		return p.Answer
	}
	return line(p.Goes, p.Sticky)
}

func line(backends []string, sticky uint32) string {
	text := strings.Join(slices.Sorted(slices.Values(backends)), ", ")
	if sticky > 0 {
		text += fmt.Sprintf(", for %d s", sticky)
	}
	return text
}
