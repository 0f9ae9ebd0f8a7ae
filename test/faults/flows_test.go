// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/kernel/nflog"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/observe"
)

// addressOf is an actor's address of a family.
func addressOf(name string, v6 bool) netip.Addr {
	all := cast()
	i := slices.IndexFunc(all, func(a actor) bool { return a.name == name })
	if v6 {
		return all[i].addrs[1]
	}
	return all[i].addrs[0]
}

// knock sends the first packet of a connection, and does not wait long for an answer.
func (w *world) knock(from, to, network string, v6 bool, port uint16) {
	w.t.Helper()
	w.knockAt(from, network, netip.AddrPortFrom(addressOf(to, v6), port))
}

func (w *world) knockAt(from, network string, to netip.AddrPort) {
	w.t.Helper()
	check(w.t, w.ns(from).Do(func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 50*time.Millisecond)
		defer cancel()
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, to.String())
		if err != nil {
			return nil // denied
		}
		_, err = conn.Write([]byte("knock"))
		_ = conn.Close() // it was sent, or not
		return err
	}))
}

// says waits for a text in the output.
func (a *agent) says(text string) {
	a.t.Helper()
	a.Await("output with "+text, func() bool { return strings.Contains(a.Log(), text) }, a.Log)
}

// lines decodes an agent's answer.
func lines(t *testing.T, text string) (records []denied.Record, s denied.Summary) {
	t.Helper()
	for line := range strings.Lines(text) {
		var l denied.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if l.Flow != nil {
			records = append(records, *l.Flow)
		}
		if l.Summary != nil {
			s = *l.Summary
		}
	}
	return records, s
}

// flows asks the agent of node1.
func (w *world) flows() ([]denied.Record, denied.Summary) {
	w.t.Helper()
	text, err := w.run("", agentProgram(), "--list-denied-flows=1m")
	check(w.t, err)
	return lines(w.t, text)
}

// short is a record without times.
func short(r denied.Record) string {
	return fmt.Sprintf("%s %s → %s: %s", r.Service(), r.Source, r.Destination, r.Reason())
}

// Every flow that policies deny is recorded with both ends, the policies and the nearest rule, over both
// families, of pods of this node and of others. What policies allow is not. Who follows sees it come.
func TestDeniedFlowsAreRecorded(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.publish(usual()...)
		a := w.enforced(w.start("--denied-flows-group=7", "--denied-flows-to=stdout,counters", "--metrics-port=20244"))
		follow := start(t, w.node(), agentProgram(), "--list-denied-flows=1m", "--follow")
		follow.says(`"summary"`)
		var want []string
		for _, v6 := range []bool{false, true} {
			w.knock(stranger, victim, "tcp", v6, 80)
			w.knock(far, victim, "udp", v6, 53)
			w.knock(jailed, peer, "tcp", v6, 443)
			w.knock(peer, victim, "tcp", v6, 80) // allowed
			v, p := addressOf(victim, v6), addressOf(peer, v6)
			want = append(want,
				fmt.Sprintf("80/tcp %s (%s) → %s (%s): no ingress rule of shop/victim allows it; nearest: shop/victim, "+
					"rule 0: its ports match, its peers do not", stranger, addressOf(stranger, v6), victim, v),
				fmt.Sprintf("53/udp %s (%s) → %s (%s): no ingress rule of shop/victim allows it; nearest: shop/victim, "+
					"rule 0: its ports match, its peers do not", far, addressOf(far, v6), victim, v),
				fmt.Sprintf("443/tcp %s (%s) → %s (%s): no egress rule of shop/jailed allows it", jailed,
					addressOf(jailed, v6), peer, p))
		}
		slices.Sort(want)
		var got []string
		var sum denied.Summary
		await(t, "a record of each denied flow", func() bool {
			var list []denied.Record
			list, sum = w.flows()
			got = nil
			for _, r := range list {
				if r.Node != "node1" || r.Verdict != denied.Denied || r.Count == 0 || r.First.After(r.Last) {
					t.Fatalf("record %+v", r)
				}
				got = append(got, short(r))
			}
			return len(got) >= len(want)
		})
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("records\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if !sum.Recording || sum.Node != "node1" || sum.Recorded < uint64(len(want)) || sum.Suppressed != 0 {
			t.Errorf("summary %+v", sum)
		}
		follow.says(addressOf(far, true).String())
		a.says(`"verdict":"denied"`)
		_, metrics := a.Get("/metrics")
		for _, line := range []string{
			`podwall_policy_denied_packets_total{direction="egress",namespace="shop",policy="jailed",verdict="denied"} `,
			`podwall_denied_packets_recorded_total{result="denied"} `,
		} {
			if !strings.Contains(metrics, line) || strings.Contains(metrics, line+"0\n") {
				t.Errorf("metrics have no %q above 0", line)
			}
		}
	})
}

// One pod that is flooded hides no denied flow of another one, nor one peer what others send to it, and
// what is not recorded is counted.
func TestAFloodOfDeniesHidesNoOther(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.publish(usual()...)
		w.enforced(w.start("--denied-flows-group=7"))
		const packets = 500
		for port := range uint16(packets) {
			w.knock(stranger, victim, "udp", false, 1000+port)
		}
		w.knock(far, victim, "udp", false, 53)
		w.knock(jailed, peer, "udp", false, 443)
		await(t, "records of the quiet pod, and of the quiet peer of the flooded one", func() bool {
			list, _ := w.flows()
			return slices.ContainsFunc(list, func(r denied.Record) bool { return r.Source.Pod.Name == "jailed" }) &&
				slices.ContainsFunc(list, func(r denied.Record) bool { return r.Source.Pod.Name == "far" })
		})
		var sum denied.Summary
		await(t, "all packets in the summary", func() bool { // what is gathered is recorded in a moment
			_, sum = w.flows()
			return sum.Recorded+sum.Suppressed == packets+2
		})
		if sum.Suppressed == 0 || sum.SuppressedTo.Before(sum.Since) {
			t.Errorf("%d recorded and %d suppressed until %s, of %d", sum.Recorded, sum.Suppressed, sum.SuppressedTo, packets+2)
		}
		w.knock(jailed, peer, "udp", false, 444)
		if _, later := w.flows(); later.Suppressed != sum.Suppressed || !later.SuppressedTo.Equal(sum.SuppressedTo) {
			t.Errorf("after a packet that is recorded: %+v, before %+v", later, sum)
		}
		text, err := w.run("", agentProgram(), "--show=ruleset")
		if err != nil || !strings.Contains(text, "# table inet podwall: the kernel has exactly this\n") {
			t.Errorf("%v: the rules are\n%s", err, text)
		}
	})
}

// A group that another program has is a problem with its cure, policies are enforced all the same, and
// records are made when that program has ended. Without a group nothing of it is in the kernel.
func TestARecorderWithoutItsGroup(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		var other *nflog.Listener
		check(t, w.node().Do(func() (err error) { other, err = nflog.Listen(7, 64); return err }))
		taken := func(s observe.Status) bool {
			return slices.ContainsFunc(s.Problems, func(p observe.Problem) bool {
				return p.Subject == "denied flows" && !p.Blocking && strings.Contains(p.Cure, "--denied-flows-group")
			})
		}
		w.publish(usual()...)
		a := w.enforced(w.start("--denied-flows-group=7"))
		a.until("that the group is taken", func(s observe.Status) bool { return s.Ready && taken(s) })
		if _, sum := w.flows(); sum.Recording || !strings.Contains(sum.Why, "another program") {
			t.Errorf("summary %+v", sum)
		}
		check(t, other.Close())
		a.until("that the group is free", func(s observe.Status) bool { return s.Ready && !taken(s) })
		w.knock(stranger, victim, "tcp", false, 80)
		await(t, "a record", func() bool { list, _ := w.flows(); return len(list) == 1 })
		a.Stop()

		a = w.enforced(w.start())
		if text := w.tables(); strings.Contains(text, "log") || strings.Contains(text, "denied-") {
			t.Errorf("without a group the tables have\n%s", text)
		}
		if list, sum := w.flows(); len(list) > 0 || sum.Recording || !strings.Contains(sum.Why, "--denied-flows-group") {
			t.Errorf("without a group the answer is %+v, %+v", list, sum)
		}
		a.Stop()
		if out, err := w.run("", agentProgram(), "--list-denied-flows=1m"); err == nil ||
			!strings.Contains(err.Error(), ": podwall-agent: denied flows: asking the agent: no podwall-agent answers") {
			t.Errorf("without an agent: %q, %v", out, err)
		}
	})
}

// Records name the Service that the client called, or, where the kernel does not tell where a connection was sent,
// those that lead to the pod; also by a node port.
func TestDeniedFlowsNameServices(t *testing.T) {
	w := newWorld(t, lab.Wiring("routed"))
	w.publish(append(usual(), `
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec:
  type: NodePort
  clusterIPs: [10.96.0.10, "fd00:96::10"]
  clusterIP: 10.96.0.10
  ipFamilies: [IPv4, IPv6]
  selector: {app: victim}
  ports: [{port: 8080, targetPort: 80, nodePort: 30080}]
`)...)
	w.enforced(w.start("--denied-flows-group=7", "--run-service-proxy=true", "--load-balancer-health-port=0",
		"--nodeport-bindon-all-ip"))
	var told nflogTells
	check(t, w.node().Do(told.ask))
	at := netip.MustParseAddrPort
	calls := map[string]netip.AddrPort{
		stranger: at("10.96.0.10:8080"), far: netip.AddrPortFrom(w.bed.Node("node1").Addrs[0], 30080), jailed: at("[fd00:96::10]:8080"),
	}
	want := map[string]string{}
	for from, to := range calls {
		w.knockAt(from, "tcp", to)
		if want[from] = "behind Service shop/front:8080"; told.entries {
			want[from] = fmt.Sprintf("by Service shop/front:8080 (%s)", to)
		}
	}
	await(t, "a record of each denied flow, with its Service", func() bool {
		list, _ := w.flows()
		got := map[string]string{}
		for _, r := range list {
			got[r.Source.Pod.String()] = r.By()
		}
		return maps.Equal(got, want)
	})
}

// nflogTells is whether this kernel tells where connections were sent at first.
type nflogTells struct{ entries bool }

func (n *nflogTells) ask() error {
	l, err := nflog.Listen(8, 64)
	if err != nil {
		return err
	}
	n.entries = l.Originals()
	return l.Close()
}
