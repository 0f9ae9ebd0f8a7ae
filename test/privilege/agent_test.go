// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/observe"
)

// What the container can do is as little as the manifest says, and is enough: for
// nftables, connections that are cut, ports of a bridge, its settings, the
// self-test, the gate's socket.
func TestTheManifestsAgentEnforces(t *testing.T) {
	for _, wiring := range []lab.Wiring{lab.Bridge, lab.Routed} {
		t.Run(string(wiring), func(t *testing.T) {
			w := newWorld(t, wiring, []string{"node1"})
			web := w.pod("web", "node1", "10.244.1.5", "fd00:244:1::5")
			friend := w.pod("friend", "node1", "10.244.1.6", "fd00:244:1::6")
			foe := w.pod("foe", "node1", "10.244.1.7", "fd00:244:1::7")
			mine := setting(t, "/proc/sys/net/bridge/bridge-nf-filter-vlan-tagged")
			h := w.host("node1", w.m.account.Name)
			a := h.start(t, &w.m.pod, "agent", nil).ready()
			a.wantConfined(t, "0000000000001000") // CAP_NET_ADMIN

			for _, to := range []string{"10.244.1.5:80", "[fd00:244:1::5]:80"} {
				l, err := web.NS.Listen(t.Context(), "tcp", to)
				check(t, err)
				defer l.Close()
				for _, from := range []*lab.Endpoint{friend, foe} {
					if !dials(t, from.NS, to) {
						t.Errorf("without a policy %s does not reach %s", from.Name, to)
					}
				}
			}
			open, err := foe.NS.Dial(t.Context(), "tcp", "10.244.1.5:80")
			check(t, err)
			defer open.Close()
			w.admit("web", "friend")
			a.status(t, "the policy, and the connection that it denies cut", func(s observe.Status) bool {
				return s.IsolatedPods == 1 && s.Cut > 0
			})
			for _, to := range []string{"10.244.1.5:80", "[fd00:244:1::5]:80"} {
				if !dials(t, friend.NS, to) || dials(t, foe.NS, to) {
					t.Errorf("%s: the friend must get in, and the foe must not", to)
				}
			}
			if s := a.status(t, "a status", func(observe.Status) bool { return true }); !s.Ready || len(s.Problems) > 0 {
				t.Errorf("ready is %t, with problems %+v", s.Ready, s.Problems)
			}
			if _, err := (gate.Client{Socket: h.path("/run/podwall/gate.sock")}).List(t.Context()); err != nil {
				t.Errorf("at the socket on the node: %v", err)
			}
			if now := setting(t, "/proc/sys/net/bridge/bridge-nf-filter-vlan-tagged"); now != mine {
				t.Errorf("the setting of this machine was %s and is %s now: it is that of the node which must change", mine, now)
			}
			a.Stop()
			w.cleansUp(h)
		})
	}
}

// cleansUp wants that the same rights are enough to take everything back.
func (w *world) cleansUp(h *host) {
	w.t.Helper()
	pod := w.m.pod.DeepCopy()
	c := container(w.t, pod, "agent")
	c.Args = append(c.Args, "--cleanup-config")
	h.start(w.t, pod, "agent", nil).Exits(0)
	tables, err := ruleset.Open(h.node.NS.FD())
	check(w.t, err)
	defer tables.Close()
	if table, err := tables.Read(); table != nil || err != nil {
		w.t.Errorf("after cleaning up there is a table: %v (%v)", table, err)
	}
	var vlan string
	check(w.t, h.node.NS.Do(func() (err error) {
		vlan, err = sysctl.Default.Read("net/bridge/bridge-nf-filter-vlan-tagged")
		return err
	}))
	if vlan != "0" {
		w.t.Errorf("after cleaning up the setting for VLAN-tagged frames is %s, want 0 as before", vlan)
	}
}

func setting(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	return strings.TrimSpace(string(text))
}

// wantConfined makes sure that the container is what these tests are about.
func (b *box) wantConfined(t *testing.T, capabilities string) {
	t.Helper()
	out, err := exec.Command("runc", "--root", b.state, "state", b.id).Output()
	check(t, err)
	var state struct{ Pid int }
	check(t, json.Unmarshal(out, &state))
	proc := fmt.Sprintf("/proc/%d", state.Pid)
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	check(t, err)
	lines := strings.Split(string(text), "\n")
	for _, want := range []string{"CapPrm:\t" + capabilities, "CapEff:\t" + capabilities, "CapBnd:\t" + capabilities,
		"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !slices.Contains(lines, want) {
			t.Errorf("the process's status has no line %q:\n%s", want, text)
		}
	}
	mounts, err := os.ReadFile(filepath.Join(proc, "mounts"))
	check(t, err)
	for _, at := range []string{" / ", " /proc/sys "} {
		i := strings.Index(string(mounts), at)
		if i < 0 || !strings.Contains(strings.SplitN(string(mounts)[i:], "\n", 2)[0], " ro,") {
			t.Errorf("%s is not read-only:\n%s", strings.TrimSpace(at), mounts)
		}
	}
}
