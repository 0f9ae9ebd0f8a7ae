// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/interpose"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// underFaults runs f on a thread whose netlink can be made to fail.
func underFaults(t *testing.T, faults *interpose.Netlink, f func()) {
	t.Helper()
	interposed(t, faults.Answer, interpose.NetlinkCalls(), f)
}

// interposed runs f on a thread whose system calls of these numbers are answered.
func interposed(t *testing.T, answer func(*interpose.Call) interpose.Answer, calls []int, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		stop, err := interpose.Thread(answer, calls...)
		if err == nil {
			defer stop()
			f()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if errors.Is(err, unix.EACCES) && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(4 * time.Minute): // soon after that the process of the test ends
		t.Fatal("it hangs")
	}
}

// turns are two programs in turn: each step makes a chain with another name, and adds and deletes a pod and
// members of sets. web is isolated in both.
func turns(n int) *program.Program {
	p := isolated(fmt.Sprintf("10.244.2.%d", 5+n%2))
	chain := fmt.Sprintf("ingress4-web%d", n%2)
	p.Pods[0].Ingress, p.Chains[0].Name = chain, chain
	p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr(fmt.Sprintf("10.244.1.%d", 6+n%2)), Name: "shop/next", Ingress: chain})
	return p
}

// closedWeb checks the pod that is isolated all the time: a verdict map must lead to a chain for it that
// ends with a drop.
func closedWeb(table *nft.Table) string {
	if table == nil || table.Dormant {
		return "there is no table, or it sleeps"
	}
	for _, e := range table.Set("pod-ingress4").Entries {
		if e.Key.Addr != netip.MustParseAddr(webPod) {
			continue
		}
		for _, c := range table.Chains {
			if c.Name == e.Verdict.Chain && len(c.Rules) > 0 {
				return ""
			}
		}
		return "the pod's chain is missing or empty: " + e.Verdict.Chain
	}
	return "the pod is not in the map of verdicts"
}

// Whatever netlink answers at any call, the isolated pod stays closed; the Apply fails or its result is
// complete; and the next ones repair it.
func TestEachFaultOfNetlinkAtEachCallLeavesPodsClosed(t *testing.T) {
	for _, f := range interpose.Faults() {
		t.Run(strings.ReplaceAll(f.String(), " ", ""), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				healthy(t, d, turns(1))
				witness, err := ruleset.Open(0)
				if err != nil {
					t.Fatal(err)
				}
				defer witness.Close()
				var faults interpose.Netlink
				underFaults(t, &faults, func() { strikeAll(t, d, witness, &faults, f) })
			})
		})
	}
}

// strikeAll makes the first call fail, then later ones, until there is none left; every single one with
// PODWALL_SOAK=1.
func strikeAll(t *testing.T, d *Datapath, witness *nft.Conn, faults *interpose.Netlink, f interpose.Fault) {
	failed, at, step := 0, 0, 5 // odd, so that the programs come by turns
	if soak.Long() {
		step = 1
	}
	for ; ; at += step {
		want := turns(at)
		d.note(nft.Notice{Table: true, Hooks: true}) // so that everything is read
		faults.Strike(f, -1, at, at+1)
		r, applied := d.Apply(t.Context(), want)
		_, struck, broken := faults.Heal()
		if broken != nil {
			t.Errorf("call %d: the tool failed: %v", at, broken)
			return
		}
		table, err := witness.Read()
		if err != nil {
			t.Errorf("call %d: %v", at, err)
			return
		}
		if why := closedWeb(table); why != "" {
			t.Errorf("call %d: after %v: %s", at, applied, why)
		}
		if applied != nil || len(r.Problems) > 0 {
			failed++
		} else if left := nft.Diff(table, r.Table); len(left) > 0 {
			t.Errorf("call %d: the Apply says that all is well, and the kernel lacks %v", at, left)
		}
		if err := heals(d, witness, want); err != nil {
			t.Errorf("call %d, after %v: %v", at, applied, err)
		}
		if struck == 0 {
			break
		}
	}
	t.Logf("up to call %d in steps of %d, %d failed the pass", at, step, failed)
	if f.Errno != unix.EINTR && (at < 10 || failed == 0) {
		t.Errorf("up to call %d, %d failed the pass: the faults were not felt", at, failed)
	}
}

// heals applies as the agent does after a failure, and wants the kernel to hold the program then: over the
// old connection the next pass would fail too, since it would take a pending answer for its own.
func heals(d *Datapath, witness *nft.Conn, want *program.Program) error {
	r, err := d.Apply(context.Background(), want)
	if err != nil || len(r.Problems) > 0 {
		return fmt.Errorf("it does not heal: %v, problems %v", err, r.Problems)
	}
	table, err := witness.Read()
	if err != nil {
		return err
	}
	if left := nft.Diff(table, r.Table); len(left) > 0 {
		return fmt.Errorf("it does not heal: the kernel lacks %v", left)
	}
	return nil
}

// The connection table cannot be read: that is reported without any other change, and the report ends by
// itself.
func TestAConnectionTableThatCannotBeReadIsSaidAtOnce(t *testing.T) {
	for _, f := range []interpose.Fault{{Kind: interpose.Sending, Errno: unix.ENOBUFS}, {Kind: interpose.Receiving, Errno: unix.ENOBUFS},
		{Kind: interpose.Refused, Errno: unix.EBUSY}, {Kind: interpose.Torn}} {
		t.Run(strings.ReplaceAll(f.String(), " ", ""), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				healthy(t, d, isolated(first))
				fill(t)
				a := &d.cuts.audit
				s, j, _ := a.next(time.Now())
				for len(d.wake) > 0 {
					<-d.wake
				}
				var faults interpose.Netlink
				underFaults(t, &faults, func() {
					faults.Strike(f, unix.NETLINK_NETFILTER, 0, 1)
					a.inspect(s, j)
					_, _, _ = faults.Heal()
				})
				if len(d.wake) == 0 {
					t.Fatal("no wake-up reports the failed scan")
				}
				<-d.wake
				if r := apply(t, d, isolated(first)); len(r.Problems) != 1 || r.Problems[0].Subject != "connections" || !r.Problems[0].Blocking {
					t.Errorf("problems = %+v, want one that connections may go on", r.Problems)
				}
				watch(t, d) // scans again by itself
				drive(t, d, isolated(first), lines(first, webPod, second, elsewhere)...)
				healthy(t, d, isolated(first))
			})
		})
	}
}
