// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// looks bounds how often the connection table is looked through for the
// connections of a pod that starts.
const looks = 4

// forget deletes the connections of addresses that a pod gets now, whoever began
// them: they are from before the pod, and where there is a route to the pod their
// packets would reach it, since a nat chain judges first packets only. Nothing of
// the pod's own can be among them as long as none of its containers runs.
//
// The table of rules must be loaded, and the route to the pod be there. Then
// nothing comes anew: a first packet is routed to the pod, meets our chain and is
// dropped before it is an entry. What was routed before that leaves by the old
// way, and is an entry microseconds later, while a plugin that makes a route and
// one that calls this are milliseconds apart. So a look can miss only what was
// under way in another processor: who found something should look once more.
// Packets that were judged before and still wait for the pod's hardware address
// are dropped.
//
// known reports whether an address is a known pod's by now; its connections are
// left to those who programmed it. It is asked after the look, which may take
// long, and entries are deleted by their id: so what the pod is allowed since is
// never among them. found, if it is not nil, gets how many connections of each
// address were to be deleted.
func forget(conn *conntrack.Conn, addrs, node []netip.Addr, known func(netip.Addr) bool, found map[netip.Addr]int) (deleted int, err error) {
	if _, err := links.DropUnresolved(addrs); err != nil {
		return 0, err
	}
	old, err := among(conn, addrs, strangers(addrs, node))
	if err != nil {
		return 0, err
	}
	now := strangers(slices.DeleteFunc(slices.Clone(addrs), known), node)
	return conn.Delete(slices.DeleteFunc(old, func(e inet.Connection) bool {
		c, ends := now.Judge(&e)
		if ends && found != nil {
			found[c.Addr]++
		}
		return !ends
	}))
}

// strangers returns the judge that denies whatever these addresses take part in,
// but for what the node began, if its addresses are given: it may talk to a pod
// that nobody knows yet. Somebody outside can forge those where the kernel does
// not check (IPv6); before any container runs the node has nothing to lose.
func strangers(addrs, node []netip.Addr) *cut.Judge {
	return cut.NewJudge(&program.Program{}, node, addrs)
}

// among returns those connections of the addresses that the judge denies.
func among(conn *conntrack.Conn, addrs []netip.Addr, j *cut.Judge) (old []inet.Connection, err error) {
	s := cut.NewScope()
	for _, a := range addrs {
		s.Touched[a] = true
	}
	err = dump(conn, s, func(e *inet.Connection) {
		if _, denied := j.Judge(e); denied {
			old = append(old, *e)
		}
	})
	return old, err
}

// forgetHere is forget in the network namespace of the calling thread, for a pod
// that nobody knows, until a look finds nothing. No look begins when ctx has
// ended; what may be left then is an error.
func forgetHere(ctx context.Context, addrs []netip.Addr) (deleted int, err error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	conn, err := conntrack.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // every answer has been read
	for range looks {
		if err := ctx.Err(); err != nil {
			return deleted, fmt.Errorf("looking for connections from before the pod: %w", err)
		}
		n, err := forget(conn, addrs, nil, func(netip.Addr) bool { return false }, nil)
		deleted += n
		if err != nil {
			return deleted, fmt.Errorf("deleting connections from before the pod: %w", err)
		}
		if n == 0 {
			break
		}
	}
	return deleted, nil
}
