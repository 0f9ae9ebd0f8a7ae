// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/interpose"
	"github.com/podwall/podwall/internal/lab/testkit/launch"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/observe"
)

// interposed is start for the agent of node1 with some of its system calls answered by the test. start
// starts the process on a locked thread.
func (w *world) interposed(start func(*exec.Cmd) error, answer func(*interpose.Call) interpose.Answer,
	calls []int) *agent {
	t := w.t
	t.Helper()
	started, running := make(chan error, 1), make(chan *launch.Process, 1)
	bound := func(cmd *exec.Cmd) {
		failed := w.node().Do(func() error {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			stop, err := interpose.Thread(answer, calls...)
			if err == nil {
				defer stop()
				err = start(cmd)
			}
			started <- err
			if err == nil {
				<-(<-running).Ended()
			}
			return nil
		})
		if failed != nil {
			started <- failed
		}
	}
	cmd := command(agentProgram(), append(w.arguments(), "--metrics-port=20245")...)
	p := launch.StartBy(t, w.node(), "agent", patience, cmd, func(cmd *exec.Cmd) error {
		go bound(cmd)
		err := <-started
		if errors.Is(err, unix.EACCES) && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		return err
	})
	running <- p
	return &agent{p, t}
}

// metric returns the value of a line of the metrics, as text.
func (a *agent) metric(name string) string {
	a.t.Helper()
	_, text := a.GetURL("http://127.0.0.1:20245/metrics")
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(value)
		}
	}
	a.t.Fatalf("there is no metric %s", name)
	return ""
}

// While netlink refuses every request, or fails again and again, the programmed state stays, and the agent
// reports the failure everywhere and retries; then it enforces the changes made in the meantime.
func TestNetlinkThatFailsUnderTraffic(t *testing.T) {
	faults := []interpose.Fault{{Kind: interpose.Receiving, Errno: unix.ENOMEM},
		{Kind: interpose.Refused, Errno: unix.EBUSY}}
	if soak.Long() {
		faults = interpose.Faults()
	}
	for _, f := range faults {
		if f.Errno == unix.EINTR && f.Kind != interpose.Refused {
			continue // no call waits in these system calls
		}
		t.Run(f.String(), func(t *testing.T) { netlinkFails(t, f) })
	}
}

func netlinkFails(t *testing.T, f interpose.Fault) {
	w := newWorld(t, lab.Routed)
	w.publish(usual()...)
	var netlink interpose.Netlink
	if f.Kind == interpose.Receiving || f.Kind == interpose.Torn {
		netlink.Every = 3
	}
	a := w.interposed((*exec.Cmd).Start, netlink.Answer, interpose.NetlinkCalls())
	w.enforced(a)
	before, tr := w.tables(), w.traffic()
	netlink.Strike(f, unix.NETLINK_NETFILTER, 0, 1<<30)
	w.publish(append(usual(), policy("peer", "peer", `policyTypes: [Ingress], ingress: []`))...)
	s := a.until("that a pass failed", func(s observe.Status) bool {
		return !s.Ready && s.LastApply != nil &&
			s.LastApply.Error != ""
	})
	if why := fmt.Sprint(s.NotReady); !strings.Contains(why, "the last pass failed") || s.SeenRevision <= s.Revision {
		t.Errorf("not ready because of %s, seen revision %d, enforced %d", why, s.SeenRevision, s.Revision)
	}
	if code, _ := a.Get("/readyz"); code != 503 && netlink.Every == 0 {
		t.Errorf("/readyz answers %d, want 503", code)
	}
	if code, _ := a.Get("/healthz"); code != 200 {
		t.Errorf("/healthz answers %d, want 200: a restart is no cure", code)
	}
	if ready, failed := a.metric("podwall_ready"), a.metric(`podwall_apply_total{result="error"}`); ready != "0" &&
		netlink.Every == 0 || failed == "0" {
		t.Errorf("the metrics say ready %s and %s failed passes", ready, failed)
	}
	first := a.failures()
	if netlink.Every == 0 {
		await(t, "another try", func() bool { return a.failures() > first })
	}
	tr.pause(400)
	if f.Kind == interpose.Sending || f.Kind == interpose.Refused { // otherwise the kernel may have accepted it without an answer
		w.same("while netlink fails", before)
	}
	seen, struck, err := netlink.Heal()
	check(t, err)
	t.Logf("%d of %d calls struck, %d passes failed", struck, seen, a.failures())
	start := time.Now()
	w.enforced(a)
	t.Logf("enforced %v after the fault", time.Since(start).Round(time.Millisecond))
	if ready := a.metric("podwall_ready"); ready != "1" {
		t.Errorf("the metrics say ready %s", ready)
	}
	tr.finish(true)
}

// The agent's wall clock jumps by hours and years, forward and back: passes, retries, verifications and
// health continue unchanged. Only displayed times differ.
func TestAWallClockThatJumpsUnderTraffic(t *testing.T) {
	w := newWorld(t, lab.Routed)
	w.publish(usual()...)
	var clock interpose.Clock
	a := w.interposed(interpose.StartWithoutVDSO, clock.Answer, interpose.Clocks())
	w.enforced(a)
	want, tr := w.tables(), w.traffic()
	for i, ahead := range []time.Duration{7 * time.Hour, -9 * time.Hour, 20 * 365 * 24 * time.Hour,
		-40 * 365 * 24 * time.Hour, 0} {
		clock.Set(ahead)
		start := time.Now()
		w.publish(append(usual(), policy("peer", "peer",
			fmt.Sprintf("policyTypes: [Ingress], ingress: [{ports: [{port: %d}]}]", 80+i)))...)
		w.enforced(a)
		s := a.until("when it did", func(s observe.Status) bool { return s.LastApply != nil })
		if off := s.LastApply.Time.Sub(start.Add(ahead)); off.Abs() > time.Minute {
			t.Errorf("the agent's clock is off by %s: the jump was not felt", off)
		}
		for _, page := range []string{"/healthz", "/readyz"} {
			if code, _ := a.Get(page); code != 200 {
				t.Errorf("%s answers %d after a jump by %s", page, code, ahead)
			}
		}
		w.publish(usual()...)
		w.enforced(a)
		w.same("after a jump", want)
		w.repairs(a)
	}
	if n := a.failures(); n > 0 {
		t.Errorf("%d passes failed", n)
	}
	tr.finish(true)
}

// repairs wants the agent to remove what another program adds to its table.
func (w *world) repairs(a *agent) {
	w.t.Helper()
	before := a.until("anything", func(observe.Status) bool { return true }).DriftRepairs
	w.nft("add chain inet podwall foreign")
	a.until("that it repaired something", func(s observe.Status) bool { return s.Ready && s.DriftRepairs > before })
}
