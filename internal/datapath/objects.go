// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// object is a part of a program that can be left out: a chain with the sets that no
// other one needs, the address of a pod, or a further member of a set that is there.
type object struct {
	chain  string       // or
	pod    program.Pod  // with its chains: a pod that changes is another object; or
	set    string       // and
	member inet.Element // of it
}

func (o object) isPod() bool { return o.chain == "" && o.set == "" }

func (o object) String() string {
	switch {
	case o.chain != "":
		return "chain " + o.chain
	case o.set != "" && o.member.Port != 0:
		return fmt.Sprintf("member %s . %d of set %s", o.member.Addr, o.member.Port, o.set)
	case o.set != "":
		return fmt.Sprintf("member %s of set %s", o.member.Addr, o.set)
	}
	return fmt.Sprintf("pod %s (%s)", o.pod.Name, o.pod.Addr)
}

// newObjects lists the objects of a program that are not in force, chains before
// pods: what refers to a chain is refused without it. Members are listed of sets
// that are there; other sets come and go with their chains. Sets of ranges are named
// after their content, so they do not change.
func newObjects(p *program.Program, in ruleset.InForce) (list []object) {
	for _, s := range p.Sets {
		if old, there := in.Sets[s.Name]; there {
			added, _ := s.Elements.Diff(old)
			for _, e := range added {
				list = append(list, object{set: s.Name, member: e})
			}
		}
	}
	for _, c := range p.Chains {
		if !in.Chains[c.Name] {
			list = append(list, object{chain: c.Name})
		}
	}
	for _, pod := range p.Pods {
		if !in.Pods[pod] {
			list = append(list, object{pod: pod})
		}
	}
	return list
}

// omitted are the objects that the kernel refuses. A pod is closed by its address,
// wherever it is; a chain is empty, which closes the pods behind it; a set does not
// have the member.
type omitted struct {
	objects map[object]bool
	// gone is true if the kernel refuses pods also closed. Then they are taken out,
	// and closed like an address of no known pod.
	gone bool
}

func (l omitted) add(list []object) {
	for _, o := range list {
		l.objects[o] = true
	}
}

func (l omitted) remove(list []object) {
	for _, o := range list {
		delete(l.objects, o)
	}
}

// keep forgets the objects that the program does not have.
func (l omitted) keep(p *program.Program) {
	if len(l.objects) == 0 {
		return
	}
	now := map[object]bool{}
	for _, o := range newObjects(p, ruleset.InForce{}) {
		now[o] = true
	}
	sets := map[string]*program.Set{}
	for _, s := range p.Sets {
		sets[s.Name] = s
	}
	for o := range l.objects {
		if s := sets[o.set]; !now[o] && (s == nil || !s.Elements.Has(o.member)) {
			delete(l.objects, o)
		}
	}
}

// leftChain begins the names of the chains that close pods which are left out.
const leftChain = "left-"

// of returns the program without the objects; the same program if none is left out.
func (l omitted) of(p *program.Program) *program.Program {
	if len(l.objects) == 0 {
		return p
	}
	less := l.pods(p)
	needed := map[string]bool{}
	for i, c := range less.Chains {
		if l.objects[object{chain: c.Name}] {
			c = &program.Chain{Name: c.Name, Direction: c.Direction, Family: c.Family}
			less.Chains[i] = c
		}
		for _, r := range c.Rules {
			needed[r.PeerSet], needed[r.PortSet], needed[r.DestSet] = true, true, true
		}
	}
	less.Sets = l.sets(p, needed)
	return less
}

// pods returns the program with the pods closed, and a list of chains of its own.
func (l omitted) pods(p *program.Program) *program.Program {
	out := func(pod program.Pod) bool { return l.objects[object{pod: pod}] }
	if !l.gone {
		return decide.ClosedFor(p, leftChain, out)
	}
	return &program.Program{Pods: slices.DeleteFunc(slices.Clone(p.Pods), out), Chains: slices.Clone(p.Chains)}
}

// sets returns the sets that are needed, without the members.
func (l omitted) sets(p *program.Program, needed map[string]bool) []*program.Set {
	list := slices.DeleteFunc(slices.Clone(p.Sets), func(s *program.Set) bool { return !needed[s.Name] })
	at := map[string]int{}
	for i, s := range list {
		at[s.Name] = i
	}
	cloned := map[string]bool{}
	for o := range l.objects {
		i, there := at[o.set]
		if !there || o.set == "" {
			continue
		}
		if !cloned[o.set] {
			less := *list[i]
			list[i], cloned[o.set] = &less, true
		}
		list[i].Elements = list[i].Elements.Without(o.member)
	}
	return list
}
