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

// change changes the index. If that has a panic there is none any more: it would be half changed.
func (l *Loop) change(how func(*service.Index) error) error {
	l.naming.Lock()
	defer l.naming.Unlock()
	x := l.index
	l.index = nil
	err := how(x)
	l.index = x
	return err
}

// answer asks the index something for a goroutine that is not the loop's. A panic is logged once, and nothing is
// answered from then on.
func (l *Loop) answer(ask func()) {
	if l.mute.Load() {
		return
	}
	if err := Contain(func() error { ask(); return nil }); err != nil && !l.mute.Swap(true) {
		l.Log.Error("Services are not named in what is refused until the service proxy starts again", "err", err)
	}
}

// look calls f with the index, unless there is none.
func (l *Loop) look(f func(*service.Index)) {
	l.naming.Lock()
	defer l.naming.Unlock()
	if l.index != nil {
		f(l.index)
	}
}

// Named names the port of a Service that is served at an address and port of this node, as namespace/name:port;
// "" if none is. It may be called from any goroutine, and has no panic.
func (l *Loop) Named(protocol inet.Protocol, at netip.AddrPort) (name string) {
	l.answer(func() {
		l.look(func(x *service.Index) {
			key, port, ok := x.Named(program.Front{Addr: at.Addr(), Protocol: protocol, Port: at.Port()})
			if ok {
				name = fmt.Sprintf("%s:%d", key, port)
			}
		})
	})
	return name
}

// Behind returns the ports of Services that lead to each destination, as namespace/name:port: sorted, and the first
// few. It reads all backends once, and holds the loop up only to look up names. It may be called from any goroutine,
// and has no panic.
func (l *Loop) Behind(to []program.Front) [][]string {
	found := make([][]string, len(to))
	l.answer(func() { l.behind(to, found) })
	return found
}

func (l *Loop) behind(to []program.Front, found [][]string) {
	var sets []service.Slots
	l.look(func(x *service.Index) { sets = x.Slots() })
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
	l.look(func(x *service.Index) {
		for i, fronts := range leading {
			found[i] = namesOf(x, fronts, to[i].Addr)
		}
	})
}

// namesOf names the Services that have fronts, which lead to an address.
func namesOf(x *service.Index, fronts map[program.Front]bool, backend netip.Addr) (list []string) {
	for f := range fronts {
		if key, port, ok := x.Owner(f, inet.FamilyOf(backend)); ok { // else it has gone meanwhile
			list = append(list, fmt.Sprintf("%s:%d", key, port))
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxBehind)]
}
