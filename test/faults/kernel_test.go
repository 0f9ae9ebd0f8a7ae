// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/observe"
)

// While the agent is stopped, one transaction floods the notifications, so that the kernel drops some of
// them (ENOBUFS), and finally deletes the table: lost notifications must count as a change. Nothing else
// wakes the agent here.
func TestLostNotificationsCountAsAChange(t *testing.T) {
	needs(t, "nft")
	w := newWorld(t, lab.Routed)
	w.publish(usual()...)
	a := start(t, w.node(), agentProgram(), "--gate-socket=", "--manifests", w.dir, "--hostname-override=node1",
		"--iptables-sync-period=1h", "--on-policy-change=keep")
	w.enforced(a)
	want := w.tables()
	tr := w.traffic()
	var flood strings.Builder
	flood.WriteString("add table ip flood\nadd set ip flood addrs { type ipv4_addr; }\n")
	for i := range 20_000 {
		fmt.Fprintf(&flood, "add element ip flood addrs { 203.%d.%d.1 }\n", i/256, i%256)
	}
	flood.WriteString("delete table inet podwall")
	a.Signal(syscall.SIGSTOP)
	w.nft(flood.String())
	a.Signal(syscall.SIGCONT)
	start := time.Now()
	w.becomes("after the flood", want)
	t.Logf("repaired %v after the agent went on", time.Since(start).Round(time.Millisecond))
	if n := w.lostNotices(); n == 0 {
		t.Error("the kernel dropped no notification: the flood was too small")
	} else {
		t.Logf("the kernel dropped notifications %d times", n)
	}
	after := len(tr.arrived())
	tr.pause(400)
	if n := len(tr.arrived()) - after; n > 0 {
		t.Errorf("%d packets arrived after the repair", n)
	}
}

// lostNotices returns how many notifications an nftables listener in node1 has lost.
func (w *world) lostNotices() (sum int) {
	w.t.Helper()
	var text []byte
	check(w.t, w.node().Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/netlink")
		return err
	}))
	for line := range strings.Lines(string(text)) {
		// socket, protocol, port, groups, rmem, wmem, dump, locks, drops, inode
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != "12" || f[3] != "00000040" {
			continue
		}
		n, err := strconv.Atoi(f[8])
		check(w.t, err)
		sum += n
	}
	return sum
}

// readOnly starts a program where /proc/sys cannot be written, as in a container
// without privileges.
const readOnly = `mount --make-rprivate / && mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"`

// Settings that cannot be written: if none is needed the node is ready; otherwise it is not ready, reports
// why, and enforces what it can.
func TestReadOnlySettingsUnderTraffic(t *testing.T) {
	needs(t, "unshare", "mount")
	eachWiring(t, func(t *testing.T, w *world) {
		args := append([]string{"--mount", "sh", "-c", readOnly, "sh", agentProgram()}, w.arguments()...)
		a := start(t, w.node(), "unshare", args...)
		s := a.until("that it has enforced something", func(s observe.Status) bool { return s.Revision > 0 })
		if w.wiring == lab.Routed {
			w.enforced(a)
		} else if why := fmt.Sprint(s.NotReady); s.Ready || !strings.Contains(why, "VLAN-tagged frames") ||
			!strings.Contains(why, "read-only") {
			t.Errorf("ready is %t because of %s, want a word about VLAN-tagged frames and what is read-only", s.Ready, why)
		}
		if w.wiring == lab.Bridge && !slices.ContainsFunc(s.Problems, func(p observe.Problem) bool {
			return p.Blocking && strings.Contains(p.Text, "/proc/sys/net/bridge/") &&
				strings.Contains(p.Cure, "sysctl net.bridge.")
		}) {
			t.Errorf("problems %+v, want one that names the path and the cure", s.Problems)
		}
		tr := w.traffic()
		tr.pause(400)
		a.Stop()
		w.enforced(w.start())
		tr.finish(true)
	})
}
