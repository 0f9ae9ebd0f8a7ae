// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/source/manifest"
)

// The cast. The victim admits only the peer; the jailed pod may send nothing; no policy selects the
// strangers, one of which is on a node without an agent.
const (
	victim   = "shop/victim"
	peer     = "shop/peer"
	jailed   = "shop/jailed"
	stranger = "evil/stranger"
	far      = "evil/far"
)

type actor struct {
	name, node string
	addrs      []netip.Addr
}

func cast() []actor {
	at := func(name, node, v4, v6 string) actor {
		return actor{name, node, []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}}
	}
	return []actor{
		at(victim, "node1", "10.244.1.10", "fd00:244:1::10"),
		at(peer, "node1", "10.244.1.11", "fd00:244:1::11"),
		at(jailed, "node1", "10.244.1.12", "fd00:244:1::12"),
		at(stranger, "node1", "10.244.1.20", "fd00:244:1::20"),
		at(far, "node2", "10.244.2.20", "fd00:244:2::20"),
	}
}

// usual are the policies of the cast's description.
func usual() []string {
	return []string{
		policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}]}]`),
		policy("jailed", "jailed", `policyTypes: [Egress], egress: []`),
	}
}

// policy writes a policy for the shop's pods of one app.
func policy(name, app, rest string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: shop}\n" +
		"spec: {podSelector: {matchLabels: {app: " + app + "}}, " + rest + "}\n"
}

// world is a lab of two nodes, with the cast and manifests for the agent.
type world struct {
	t      *testing.T
	wiring lab.Wiring
	bed    *lab.Bed
	dir    string // of manifests
	table  *nft.Conn
	base   string // what every version of the manifests has
}

func newWorld(t *testing.T, wiring lab.Wiring) *world {
	t.Helper()
	bed, err := lab.NewBed(lab.Config{Wiring: wiring, Nodes: []string{"node1", "node2"}})
	check(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	w := &world{t: t, wiring: wiring, bed: bed, dir: t.TempDir()}
	w.table, err = ruleset.Open(w.node().FD())
	check(t, err)
	t.Cleanup(func() { check(t, w.table.Close()) })
	w.base = w.nodes() + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n" +
		"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: evil}\n"
	for _, a := range cast() {
		w.wire(a)
		w.base += "---\n" + a.manifest()
	}
	return w
}

func (w *world) node() *netns.NS { return w.bed.Node("node1").NS }

func (w *world) ns(name string) *netns.NS {
	w.t.Helper()
	e := w.bed.Pod(key(name))
	if e == nil {
		w.t.Fatalf("there is no pod %s", name)
	}
	return e.NS
}

func (w *world) wire(a actor) {
	w.t.Helper()
	_, err := w.bed.AddPod(lab.PodSpec{Key: key(a.name), Node: a.node, IPs: a.addrs})
	check(w.t, err)
}

func key(name string) cluster.Key {
	namespace, short, _ := strings.Cut(name, "/")
	return cluster.Key{Namespace: namespace, Name: short}
}

func (w *world) nodes() (text string) {
	for _, name := range []string{"node1", "node2"} {
		text += "---\napiVersion: v1\nkind: Node\nmetadata: {name: " + name + "}\nstatus: {addresses: ["
		for _, a := range w.bed.Node(name).Addrs {
			text += fmt.Sprintf("{type: InternalIP, address: %q}, ", a)
		}
		text += "]}\n"
	}
	return text
}

func (a actor) manifest() string {
	k := key(a.name)
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s, uid: %[1]s, labels: {app: %[1]s}}\n"+
		"spec: {nodeName: %[3]s, containers: [{name: main, image: none}]}\n"+
		"status: {phase: Running, podIP: %[4]q, podIPs: [{ip: %[4]q}, {ip: %[5]q}]}\n", k.Name, k.Namespace, a.node, a.addrs[0], a.addrs[1])
}

// publish makes these the only policies, in one step. Agents need not have seen them when it returns.
func (w *world) publish(policies ...string) {
	w.t.Helper()
	text := strings.Join(append([]string{w.base}, policies...), "---\n")
	next := filepath.Join(w.dir, "next")
	check(w.t, os.WriteFile(next, []byte(text), 0o600))
	check(w.t, os.Rename(next, filepath.Join(w.dir, "cluster.yaml")))
}

// start starts the agent on the manifests.
func (w *world) start(args ...string) *agent {
	w.t.Helper()
	return start(w.t, w.node(), agentProgram(), append(w.arguments(), args...)...)
}

func (w *world) arguments() []string {
	return []string{"--gate-socket=", "--manifests", w.dir, "--hostname-override=node1", "--iptables-sync-period=1s"}
}

// enforced waits until the agent enforces what is published.
func (w *world) enforced(a *agent) *agent {
	w.t.Helper()
	digest, err := manifest.Digest(w.dir)
	check(w.t, err)
	a.until("that it enforces the manifests", func(s observe.Status) bool { return s.Ready && s.SourceID == digest })
	return a
}

// tables returns all of podwall's tables in the kernel of node1, as text.
func (w *world) tables() string {
	w.t.Helper()
	var text strings.Builder
	for _, conn := range []*nft.Conn{w.table, w.table.Of(ruleset.BridgeTable())} {
		table, err := conn.Read()
		if err != nil {
			// Another program is writing: the caller reads again.
			fmt.Fprintln(&text, err)
		} else if table != nil {
			for _, set := range table.Sets {
				set.Comment = "" // not compared
			}
			fmt.Fprintf(&text, "dormant %t\n%s", table.Dormant, table)
		}
	}
	return text.String()
}

// same wants podwall's tables to be unchanged.
func (w *world) same(what, want string) {
	w.t.Helper()
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(w.tables(), "\n")); diff != "" {
		w.t.Errorf("%s: the tables (+) are not as they were (-):\n%s", what, diff)
	}
}

// becomes waits until podwall's tables are as before.
func (w *world) becomes(what, want string) {
	w.t.Helper()
	for end := time.Now().Add(patience); w.tables() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.same(what, want)
			w.t.FailNow()
		}
	}
}

// drops are packets that were dropped, by the counter.
type drops map[string]uint64

func (d drops) sum() (n uint64) {
	for _, of := range d {
		n += of
	}
	return n
}

// since returns what was dropped after another count.
func (d drops) since(before drops) drops {
	later := drops{}
	for name, n := range d {
		if n != before[name] {
			later[name] = n - before[name]
		}
	}
	return later
}

// drops reads the drop counters of node1.
func (w *world) drops() drops {
	w.t.Helper()
	counters, err := ruleset.Counters(w.table)
	check(w.t, err)
	d := drops{}
	for _, name := range []string{ruleset.CounterIngress, ruleset.CounterEgress, ruleset.CounterUnknownPod,
		ruleset.CounterBroadcast, ruleset.CounterSpoofed, ruleset.CounterSpoofedFrame, ruleset.CounterInvalid} {
		d[name] = counters[name]
	}
	return d
}

// run runs a program in node1 with some input.
func (w *world) run(input, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	if err := w.node().Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("running %s: %w: %s", name, err, out.String())
	}
	return out.String(), nil
}

// nft runs commands in node1, as one transaction.
func (w *world) nft(commands string) {
	w.t.Helper()
	_, err := w.run(commands+"\n", "nft", "-f", "-")
	check(w.t, err)
}
