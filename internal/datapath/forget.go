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

// looks bounds how often the connection table is scanned for connections older than a pod that starts.
const looks = 4

// forget deletes the conntrack entries of addresses that a pod is about to get, whichever end opened the
// connection. They are older than the pod. Once a route to the pod exists, their packets would reach it,
// since a nat chain sees only first packets. None of them is the pod's own as long as none of its
// containers runs.
//
// The rules must be loaded and the route to the pod must exist. Then no entry is added again: a first
// packet is routed to the pod, meets our chain and is dropped before it becomes an entry. A packet that was
// routed earlier leaves by its old route and becomes an entry within microseconds, while the plugin that
// adds the route and the one that calls forget are milliseconds apart. So a scan can miss only packets in
// flight on another processor: after a scan that found something, callers should scan again. Packets that
// got their verdict earlier and still wait for the pod's hardware address are dropped.
//
// known reports whether an address belongs to a known pod by now; its connections are left to the pass that
// programmed the pod. It is called after the scan, which may take long, and entries are deleted by their
// id: connections that the pod has been allowed since are never among them. found, if not nil, receives the
// number of connections to delete per address.
func forget(
	conn *conntrack.Conn,
	addrs, node []netip.Addr,
	known func(netip.Addr) bool,
	found map[netip.Addr]int,
) (deleted int, err error) {
	if _, err := links.DropUnresolved(addrs); err != nil {
		return 0, err
	}
	old, err := among(conn, addrs, denyingAll(addrs, node))
	if err != nil {
		return 0, err
	}
	now := denyingAll(slices.DeleteFunc(slices.Clone(addrs), known), node)
	return conn.Delete(slices.DeleteFunc(old, func(e inet.Connection) bool {
		c, ends := now.Judge(&e)
		if ends && found != nil {
			found[c.Addr]++
		}
		return !ends
	}))
}

// denyingAll returns a judge that denies every connection of these addresses, except connections opened by
// the node if its addresses are given: the node may connect to a pod before the agent knows the pod.
// Outside hosts can spoof node addresses where the kernel does not check sources (IPv6); before any
// container runs, the node has no connection to lose, so its addresses are not given.
func denyingAll(addrs, node []netip.Addr) *cut.Judge {
	return cut.NewJudge(&program.Program{}, node, addrs)
}

// among returns the connections of the addresses that the judge denies.
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

// forgetHere runs forget in the network namespace of the calling thread, for a pod that is not known yet,
// until a scan finds nothing. No scan begins after ctx has ended; then some may be left, which is an error.
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
			return deleted, fmt.Errorf("scanning for connections older than the pod: %w", err)
		}
		n, err := forget(conn, addrs, nil, func(netip.Addr) bool { return false }, nil)
		deleted += n
		if err != nil {
			return deleted, fmt.Errorf("deleting connections older than the pod: %w", err)
		}
		if n == 0 {
			break
		}
	}
	return deleted, nil
}
