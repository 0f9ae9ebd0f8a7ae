// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// HolderOf returns the name and the ID of the local pod that a table records for an
// address; "" for none, and for a name that was clipped.
func HolderOf(t *nft.Table, a netip.Addr) (name, id string) {
	if t == nil {
		return "", ""
	}
	s := t.Set(perFamily(setPodIngress, inet.FamilyOf(a)))
	if s == nil {
		return "", ""
	}
	for _, e := range s.Entries {
		if e.Key.Addr == a {
			name, id, whole := strings.Cut(e.Comment, " ")
			switch clipped := strings.HasSuffix(e.Comment, "..."); {
			case clipped && !whole:
				return "", ""
			case clipped:
				return name, ""
			}
			return name, id
		}
	}
	return "", ""
}

// LocalPods returns the local pods recorded in a table's verdict maps, sorted by
// address; none for a nil table. A clipped or missing name is taken from the program's
// pod at that address: nothing shows that another pod had the address, and taking it for
// another would delete allowed connections.
func LocalPods(t *nft.Table, p *program.Program) (pods []program.Pod) {
	if t == nil {
		return nil
	}
	now := make(map[netip.Addr]program.Pod, len(p.Pods))
	for _, pod := range p.Pods {
		now[pod.Addr] = pod
	}
	for _, f := range inet.Families {
		s := t.Set(perFamily(setPodIngress, f))
		if s == nil {
			continue
		}
		for _, e := range s.Entries {
			name, id, _ := strings.Cut(e.Comment, " ")
			tenant, _, _ := strings.Cut(name, "/")
			pod := program.Pod{Addr: e.Key.Addr, Name: name, ID: id, Tenant: tenant}
			same, ok := now[pod.Addr]
			if ok && (e.Comment == "" || nft.Clip(podComment(same)) == e.Comment || id == "" && name == same.Name) {
				pod.Name, pod.ID, pod.Tenant = same.Name, same.ID, same.Tenant // the comment may be cut off, or old
			}
			if pod.Addr != SelfTest(f) {
				pods = append(pods, pod)
			}
		}
	}
	slices.SortFunc(pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
	return pods
}
