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

// HolderOf returns the name and the ID of the local pod that a table knows at an address;
// "" for none, and for what is not known as a whole.
func HolderOf(t *nft.Table, a netip.Addr) (name, id string) {
	if t == nil {
		return "", ""
	}
	s := t.Set(perFamily("to", inet.FamilyOf(a)))
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

// LocalPods returns the local pods that a table knows, by address and name; none of
// no table, and of one that was written before anybody knew a pod. A name that was
// clipped is that of the program's pod, if it may be the same; so is one that is not
// there, since nobody says that another pod had the address, and allowed connections
// would be deleted.
func LocalPods(t *nft.Table, p *program.Program) (pods []program.Pod) {
	if t == nil {
		return nil
	}
	now := make(map[netip.Addr]program.Pod, len(p.Pods))
	for _, pod := range p.Pods {
		now[pod.Addr] = pod
	}
	for _, f := range inet.Families {
		s := t.Set(perFamily("to", f))
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
