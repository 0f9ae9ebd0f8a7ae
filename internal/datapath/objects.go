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

// object is a part of a program that can be left out: a chain with the sets that only it needs, the address
// of a pod, or a new member of an existing set.
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

// newObjects lists the objects of a program that are not in force, chains before pods, because a reference
// to a missing chain is refused. It lists members only for existing sets; other sets are added and deleted
// with their chains. Sets of ranges are named after their content, so they never change.
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

// omitted are the objects that the kernel refuses. A pod is closed by its address, wherever it is; a chain
// is emptied, which closes its pods, and audits none; a set lacks the member.
type omitted struct {
	objects map[object]bool
	// gone is true if the kernel refuses even closed pods. Then they are removed, and closed like unknown
	// addresses.
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

// keep forgets the objects that the program does not contain.
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

// leftChain is the prefix of the chains that close pods left out.
const leftChain = "left-"

// of returns the program without the objects, or the same program if none is left out.
func (l omitted) of(p *program.Program) *program.Program {
	if len(l.objects) == 0 {
		return p
	}
	less := l.pods(p)
	l.unaudit(less.Pods)
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

// pods returns the program with the pods closed, and with its own lists of pods and chains.
func (l omitted) pods(p *program.Program) *program.Program {
	out := func(pod program.Pod) bool { return l.objects[object{pod: pod}] }
	if !l.gone {
		return decide.ClosedFor(p, leftChain, out)
	}
	return &program.Program{Pods: slices.DeleteFunc(slices.Clone(p.Pods), out), Chains: slices.Clone(p.Chains)}
}

// unaudit ends the audit of pods by chains left out: an emptied chain would count all their packets.
func (l omitted) unaudit(pods []program.Pod) {
	out := func(chain string) bool { return chain != "" && l.objects[object{chain: chain}] }
	for i := range pods {
		if pod := &pods[i]; out(pod.AuditIngress) {
			pod.AuditIngress = ""
		}
		if pod := &pods[i]; out(pod.AuditEgress) {
			pod.AuditEgress = ""
		}
	}
}

// sets returns the needed sets without the refused members.
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
