// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/ipvs/host"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// newNodeByIPVS makes a node whose Services are served by IPVS.
func newNodeByIPVS(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	var of *tables.Tables
	err := n.ns.Do(func() (err error) {
		log := slog.New(slog.DiscardHandler)
		if of, err = tables.Open(ruleset.Settings{IPVS: true}, new(nft.Tally), log); err != nil {
			return err
		}
		if n.ipvs, err = host.Open(of, host.Settings{}, log); err != nil {
			return errors.Join(err, of.Close())
		}
		return nil
	})
	if errors.Is(err, kernel.ErrNone) && os.Getenv("PODWALL_IPVS") != "true" {
		t.Skip("this kernel has no IPVS: run `make vm`")
	}
	check(t, err)
	t.Cleanup(func() { check(t, errors.Join(n.ipvs.Close(), of.Close())) })
	return n
}

// applyByIPVS brings the programs of a model into the kernel by IPVS and the tables beside it.
func (n *node) applyByIPVS(t fataler, m *service.Model) {
	t.Helper()
	var r tables.Report
	check(t, n.ns.Do(func() (err error) {
		own := func(a netip.Addr) bool { return slices.Contains(n.addrs, a) }
		want := tables.Desired{Model: m, Own: own}
		r, err = n.ipvs.Apply(n.context, want)
		for err == nil && r.Later > 0 {
			time.Sleep(r.Later)
			r, err = n.ipvs.Apply(n.context, want)
		}
		return err
	}))
	check(t, r.Unsettled)
	if problems := n.ipvs.Problems(); len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	for f, k := range n.tables {
		k.program = m.Program(f)
	}
}

// isLocal reports whether packets to an address stay in the node. With IPVS those of Services do.
func (n *node) isLocal(t fataler, a netip.Addr) bool {
	t.Helper()
	if n.ipvs == nil {
		return slices.Contains(n.addrs, a) || a.IsLoopback()
	}
	routes, err := n.handle.RouteGet(a.AsSlice())
	check(t, err)
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// cannotMean reports whether IPVS cannot do with a packet what the oracle says: a pod's packet to itself, which
// never comes here, is masqueraded, since IPVS leaves no sign of what it translates; and clients and endpoints at
// the external address of a Service are cut off, since that address is the node's then.
func (n *node) cannotMean(t fataler, p gen.ServicePacket, want oracle.Answer) bool {
	return p.Src == p.Dst || !p.FromNode && n.isLocal(t, p.Src) || slices.ContainsFunc(want.Backends, func(b oracle.Backend) bool {
		return !slices.Contains(n.addrs, b.To.Addr()) && n.isLocal(t, b.To.Addr())
	})
}

// The scenarios with IPVS in the place of the tables' own choice: every field, all protocols, the same answers.
func TestScenariosInTheKernelByIPVS(t *testing.T) { playAll(t, newNodeByIPVS(t)) }

// The same for random clusters.
func TestRandomPacketsInTheKernelByIPVS(t *testing.T) { playRandom(t, newNodeByIPVS(t)) }
