// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/stale"
)

// deleteStale deletes what a change makes stale, and returns how many entries that were.
func (w *world) deleteStale(t *testing.T, j *stale.Judge) (deleted int) {
	t.Helper()
	check(t, w.endpoint(ourNode).NS.Do(func() error {
		c, err := conntrack.Open()
		if err != nil {
			return err
		}
		var list []inet.Connection
		err = c.Dump(w.family, func(e *inet.Connection) {
			if j.Stale(*e) {
				list = append(list, *e)
			}
		})
		if err == nil {
			deleted, err = c.Delete(list)
		}
		return errors.Join(err, c.Close())
	}))
	return deleted
}

// A client that keeps its port follows the Service: past it before it is there, to a backend, to another one
// when that goes, refused when the last one goes, and back.
func TestAClientWithOnePortFollowsTheService(t *testing.T) {
	for _, family := range inet.Families {
		w := bareWorld(t, family)
		front := program.Front{Addr: w.web, Protocol: inet.UDP, Port: port}
		conn, err := w.endpoint(localPod).NS.Dial(t.Context(), "udp", netip.AddrPortFrom(w.web, port).String())
		check(t, err)
		t.Cleanup(func() { check(t, conn.Close()) })
		ask := func() string { return w.kept(localPod, answer(t, conn)) }
		step := func(what string, next *program.Program, entries int) {
			t.Helper()
			if got := w.apply(t, next); got != entries {
				t.Errorf("%s: %d entries were stale, want %d", what, got, entries)
			}
		}
		full := w.example.program()
		empty := &program.Program{Family: family, NodePods: full.NodePods, ClusterPods: full.ClusterPods}
		w.apply(t, empty) // the kernel remembers connections from now on
		_, err = conn.Write([]byte("is anybody there?"))
		check(t, err)
		for w.entries(t, front) == 0 {
			time.Sleep(time.Millisecond)
		}
		step("the Service comes", full, 1)
		first := ask()
		if again := ask(); again != first {
			t.Errorf("first %s, then %s", first, again)
		}
		at := map[bool]netip.Addr{true: w.example.own, false: w.far}[first == ownPod+" sees the client"]
		less := without(full, front, program.Backend{Addr: at, Port: target})
		step("its backend goes", less, 1)
		second := ask()
		if second == first {
			t.Errorf("the client still meets %s, which went", first)
		}
		other, _ := less.Slot(front, 0)
		none := without(less, front, other.Backend)
		r, _ := none.Route(front)
		none.Routes = none.Routes.Without(r)
		r.Inside, r.Outside = program.Pick{Otherwise: program.Reject}, program.Pick{Otherwise: program.Reject}
		none.Routes = none.Routes.With(r)
		step("the last backend goes", none, 1)
		if got := ask(); got != refused {
			t.Errorf("without a backend: %s", got)
		}
		step("they come back", full, 0)
		ask()
	}
}

// entries returns the number of entries to a front.
func (w *world) entries(t *testing.T, f program.Front) (n int) {
	t.Helper()
	check(t, w.endpoint(ourNode).NS.Do(func() error {
		c, err := conntrack.Open()
		if err != nil {
			return err
		}
		err = c.Dump(w.family, func(e *inet.Connection) {
			if e.Protocol == f.Protocol && e.Orig.Dst == f.Addr && e.Orig.DstPort == f.Port {
				n++
			}
		})
		return errors.Join(err, c.Close())
	}))
	return n
}

// answer sends a datagram and returns what comes back, or refused.
func answer(t *testing.T, conn net.Conn) string {
	t.Helper()
	check(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err := conn.Write([]byte("who are you?"))
	buffer, n := make([]byte, 100), 0
	if err == nil {
		n, err = conn.Read(buffer)
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return refused
	}
	check(t, err)
	return string(buffer[:n])
}
