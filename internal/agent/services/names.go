// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
)

// maxBehind is how many Services are named that lead to one destination.
const maxBehind = 8

// change changes the index.
func (l *Loop) change(how func(*service.Index) error) error {
	l.naming.Lock()
	defer l.naming.Unlock()
	return how(l.index)
}

// Named names the port of a Service that is served at an address and port of this node, as namespace/name:port;
// "" if none is. It may be called from any goroutine.
func (l *Loop) Named(protocol inet.Protocol, at netip.AddrPort) string {
	l.naming.Lock()
	defer l.naming.Unlock()
	if l.index == nil {
		return ""
	}
	key, port, ok := l.index.Named(program.Front{Addr: at.Addr(), Protocol: protocol, Port: at.Port()})
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d", key, port)
}

// Behind returns the ports of Services that lead to each destination, as namespace/name:port: sorted, and the first
// few. It reads all backends once, and holds the loop up only to look up names. It may be called from any goroutine.
func (l *Loop) Behind(to []program.Front) [][]string {
	l.naming.Lock()
	x := l.index
	var sets []service.Slots
	if x != nil {
		sets = x.Slots()
	}
	l.naming.Unlock()
	wanted := map[program.Front][]int{}
	for i, d := range to {
		wanted[d] = append(wanted[d], i)
	}
	leading := make([]map[program.Front]bool, len(to))
	for _, set := range sets {
		for s := range set.All() {
			for _, i := range wanted[program.Front{Addr: s.Addr, Protocol: s.Front.Protocol, Port: s.Port}] {
				if leading[i] == nil {
					leading[i] = map[program.Front]bool{}
				}
				leading[i][s.Front] = true
			}
		}
	}
	found := make([][]string, len(to))
	l.naming.Lock()
	defer l.naming.Unlock()
	for i, fronts := range leading {
		found[i] = l.namesOf(fronts, to[i].Addr)
	}
	return found
}

// namesOf names the Services that have fronts, which lead to an address; naming is held.
func (l *Loop) namesOf(fronts map[program.Front]bool, backend netip.Addr) (list []string) {
	for f := range fronts {
		if key, port, ok := l.index.Owner(f, inet.FamilyOf(backend)); ok { // else it has gone meanwhile
			list = append(list, fmt.Sprintf("%s:%d", key, port))
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxBehind)]
}
