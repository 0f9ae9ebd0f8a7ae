// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// scene is a node on which one decision after another is made and committed.
type scene struct {
	d *Decider
	w Wiring
	c Connections
}

// newScene is a node with somebody who looks beside the loop. Nothing leads to a
// pod yet.
func newScene(o Options) *scene {
	return &scene{d: New(o), w: Wiring{Now: time.Unix(1_000_000, 0), Paths: map[netip.Addr]inet.Path{},
		Routed:    map[netip.Addr]bool{},
		Announced: map[netip.Addr]bool{}, NodePorts: map[int][]string{}, Open: []string{"eth0"}, Searching: true,
		Clean: map[netip.Addr]Search{}}}
}

// wire gives each pod an interface of its own.
func (s *scene) wire(p *program.Program) *scene {
	for _, pod := range p.Pods {
		s.w.Paths[pod.Addr] = linkOf(pod.Addr)
	}
	return s
}

// looked says that nothing from before these pods is left.
func (s *scene) looked(p *program.Program) *scene {
	for _, pod := range p.Pods {
		s.w.Clean[pod.Addr] = Search{Link: s.w.Paths[pod.Addr].Index, Empty: true}
	}
	return s
}

// commit decides, and commits without a failure.
func (s *scene) commit(p *program.Program) Decision {
	out := s.d.Decide(p, p, s.w, s.c)
	s.d.Committed(&out)
	s.c.Found, s.c.Read, s.c.Refused = nil, false, nil
	for _, pod := range out.Known.Pods {
		delete(s.w.Clean, pod.Addr) // what is found now may be the pod's own
	}
	return out
}

// end decides about connections alone, and commits.
func (s *scene) end() Decision {
	out := s.d.End(s.w.Now, s.c)
	s.d.Committed(&out)
	s.c.Found = nil
	return out
}

// settle commits until the same program asks for nothing any more.
func (s *scene) settle(p *program.Program) *scene {
	s.wire(p).looked(p).commit(p)
	s.commit(p)
	return s
}

func linkOf(a netip.Addr) inet.Path {
	b := a.AsSlice()
	return inet.Path{Index: int(b[len(b)-1]) + 10, Link: "veth" + a.String()}
}

func at(s string) netip.Addr { return netip.MustParseAddr(s) }

// pod is one of the shop, isolated for ingress.
func pod(addr, name string) program.Pod {
	return program.Pod{Addr: at(addr), Name: "shop/" + name, ID: name, Tenant: "shop", Ingress: "ingress4-web"}
}

// openPod is one that no policy isolates.
func openPod(addr, name string) program.Pod {
	p := pod(addr, name)
	p.Ingress = ""
	return p
}

// letting is a program with these pods; who is isolated is reached from the peers.
func letting(peers []string, pods ...program.Pod) *program.Program {
	set := &program.Set{Name: "pods4-" + strings.Join(peers, "-"), Kind: inet.Addrs, Family: inet.IPv4}
	for _, a := range peers {
		set.Elements = set.Elements.With(inet.Element{Addr: at(a)})
	}
	slices.SortFunc(pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
	return &program.Program{Pods: pods, Sets: []*program.Set{set},
		Chains: []*program.Chain{{Name: "ingress4-web", Direction: program.Ingress,
			Family: inet.IPv4, Rules: []program.Rule{{PeerSet: set.Name}}}}}
}

// connection is one that a scan found, as the kernel has it.
func connection(from, to string) cut.Cut {
	return cut.Cut{Reason: cut.Ingress, Addr: at(to), Pod: "shop/web", Tenant: "shop",
		Entry: inet.Connection{Protocol: inet.TCP,
			Orig:  inet.Tuple{Src: at(from), Dst: at(to), SrcPort: 40000, DstPort: 80},
			Reply: inet.Tuple{Src: at(to), Dst: at(from), SrcPort: 80, DstPort: 40000}}}
}

func addrsOf(p *program.Program) (list []string) {
	if p == nil {
		return nil
	}
	for _, pod := range p.Pods {
		list = append(list, pod.Addr.String())
	}
	return list
}

func texts(list []netip.Addr) (texts []string) {
	for _, a := range list {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	return texts
}

func subjects(list []Problem) (names []string) {
	for _, p := range list {
		names = append(names, p.Subject)
	}
	slices.Sort(names)
	return names
}

// touched returns the addresses of all scopes, those that are left with a minus,
// and a star for all.
func touched(s cut.Scopes) (list []string) {
	all := s.All()
	for _, a := range slices.Collect(maps.Keys(all.Touched)) {
		list = append(list, a.String())
	}
	for a := range all.Left {
		list = append(list, "-"+a.String())
	}
	if all.Whole {
		list = append(list, "*")
	}
	slices.Sort(list)
	return list
}
