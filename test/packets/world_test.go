// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// The cast, see package stage.
const (
	victim = stage.Victim
	peer   = stage.Peer
	jailed = stage.Jailed
	near   = stage.Near
	open   = stage.Open
	far    = stage.Far
	yonder = stage.Yonder
	node1  = stage.Node1
	node2  = stage.Node2
	out    = stage.Out
)

// TestMain runs the tests in a world of their own, with the agent that is built.
func TestMain(m *testing.M) { entry.Main(m, entry.BuiltAgent("../..")) }

// world is a stage with ordinary sockets and network conditions.
type world struct{ *stage.World }

func eachWiring(t *testing.T, test func(t *testing.T, w *world)) {
	stage.EachWiring(t, stage.Setup{}, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}

func eachDatapath(t *testing.T, test func(t *testing.T, w *world)) {
	stage.EachDatapath(t, stage.Setup{}, func(t *testing.T, w *stage.World) { test(t, &world{w}) })
}

// denyAll isolates every pod of the shop in both directions, except for what the other policies allow.
func (w *world) denyAll(t *testing.T, others ...string) {
	t.Helper()
	w.Enforce(t, append([]string{stage.Policy("all", "", `policyTypes: [Ingress, Egress]`)}, others...)...)
}

// load adds rules of another program to a namespace.
func (w *world) load(t *testing.T, endpoint, rules string) {
	t.Helper()
	w.run(t, endpoint, rules, "nft", "-f", "-")
}

// run runs a program inside an endpoint and returns what it prints.
func (w *world) run(t *testing.T, endpoint, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	err := w.NS(t, endpoint).Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("running %v in %s: %v\n%s\n%s", args, endpoint, err, &out, input)
	}
	return out.String()
}

// link returns a link of an endpoint, and the handle to change it.
func (w *world) link(t *testing.T, endpoint, name string) (*netlink.Handle, netlink.Link) {
	t.Helper()
	h := w.Handle(t, endpoint)
	l, err := h.LinkByName(name)
	stage.Check(t, err)
	return h, l
}

// toPod is the link over which a pod's node sends to the pod.
func (w *world) toPod(t *testing.T, pod string) (*netlink.Handle, netlink.Link) {
	t.Helper()
	e := w.Endpoint(t, pod)
	if w.Wiring == lab.Bridge {
		return w.link(t, e.Node, lab.BridgeName)
	}
	return w.link(t, e.Node, e.HostDevice)
}

// serve adds a Service with port 80 for the victim's port 8080.
func (w *world) serve(t *testing.T, protos ...packet.Protocol) {
	t.Helper()
	w.Svc = nil
	for _, proto := range protos {
		for _, v6 := range []bool{false, true} {
			w.Svc = append(w.Svc, lab.Service{Front: front(v6), Proto: proto,
				Backends: []netip.AddrPort{netip.AddrPortFrom(w.Addr(t, victim, v6), 8080)}})
		}
	}
}

func front(v6 bool) netip.AddrPort {
	return netip.AddrPortFrom(stage.Pick(v6, "fd00:96::10", "10.96.0.10"), 80)
}

// tracking reads a column of a namespace's conntrack statistics, summed over all processors.
func (w *world) tracking(t *testing.T, endpoint, column string) (sum uint64) {
	t.Helper()
	var text []byte
	stage.Check(t, w.NS(t, endpoint).Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
		return err
	}))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	at := slices.Index(strings.Fields(lines[0]), column)
	for _, l := range lines[1:] {
		n, err := strconv.ParseUint(strings.Fields(l)[at], 16, 64)
		stage.Check(t, err)
		sum += n
	}
	return sum
}
