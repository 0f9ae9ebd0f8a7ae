// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
)

// What explain says of a Service is what the oracle says of packets to it.
func TestTheOracleAgreesWithExplainedServices(t *testing.T) {
	asked := map[oracle.Verdict]int{}
	enough := func() bool { return min(asked[oracle.Forward], asked[oracle.Reject], asked[oracle.Drop]) >= 50 }
	gen.CheckUntil(t, enough, func(t *rapid.T) {
		set, w := gen.ServiceSettings(t), &gen.Services{}
		for range rapid.SampledFrom([]int{40, 30, 20, 10}).Draw(t, "steps") {
			w.Change(t)
		}
		sc := newScene(&cluster.Snapshot{}, nil)
		sc.served = w.Snapshot(t)
		own := func(n *cluster.Node) bool { return n.Name == set.Node }
		if !slices.ContainsFunc(sc.served.Nodes, own) {
			return // the node is gone
		}
		sc.serving = func(*cluster.Node) (service.Settings, bool) { return service.Settings(set), true }
		told := map[cluster.Key]*serviceReport{}
		for _, p := range gen.Packets(t) {
			want := oracle.Judge(sc.served, set, oracle.Packet(p))
			if want.Service == (cluster.Key{}) {
				continue
			}
			if told[want.Service] == nil {
				var err error
				if told[want.Service], err = sc.accounts(t.Context(), want.Service); err != nil {
					t.Fatal(err)
				}
			}
			agree(t, told[want.Service].only(set.Node), set, p, want)
			asked[want.Verdict]++
		}
	})
}

// agree compares what is told of a Service with the answer to a packet.
func agree(t *rapid.T, n nodeFronts, set oracle.Settings, p gen.ServicePacket, want oracle.Answer) {
	to := program.Front{Addr: p.Dst, Protocol: inet.Protocol(p.Protocol), Port: p.Port}
	at := func(f program.Front) int {
		return slices.IndexFunc(n.Fronts, func(x frontFate) bool {
			return x.front == f && (f.Addr.IsValid() || x.Front[len(x.Front)-1:] == map[bool]string{true: "4", false: "6"}[p.Dst.Is4()])
		})
	}
	i := at(to)
	if i < 0 {
		to.Addr = netip.Addr{}
		i = at(to)
	}
	if i < 0 {
		t.Fatalf("%+v: no front of %s is told: %+v", p, want.Service, n)
	}
	f := n.Fronts[i]
	within := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(x netip.Prefix) bool { return x.Contains(p.Src) })
	}
	got := f.Outside
	if p.FromNode || within(set.NodePods) {
		got = f.Inside
	}
	admitted := f.Admits == nil || slices.ContainsFunc(f.Admits, func(x string) bool { return netip.MustParsePrefix(x).Contains(p.Src) })
	if !admitted {
		got = fate{Verdict: "drop"}
	}
	var ends []string
	for _, b := range want.Backends {
		ends = append(ends, b.To.String())
		kept := got.Source == sources[program.Never] || got.Source == sources[program.Strangers] && within(set.ClusterPods)
		if kept != b.SourceKept && b.To.Addr() != p.Src { // a pod to itself is always masqueraded
			t.Fatalf("%+v: the endpoint %s sees the %s, the oracle says that the source is kept: %t", p, b.To, got.Source, b.SourceKept)
		}
	}
	var told []string
	for _, e := range got.Endpoints {
		told = append(told, e.Address)
	}
	slices.Sort(ends)
	slices.Sort(told)
	if got.Verdict != want.Verdict.String() || !slices.Equal(ends, told) || admitted && f.Affinity != want.Sticky &&
		want.Verdict == oracle.Forward {
		t.Fatalf("%+v: told %+v, the oracle says %+v", p, got, want)
	}
}

// only is the answer of one node.
func (r *serviceReport) only(node string) nodeFronts {
	i := slices.IndexFunc(r.Nodes, func(n nodeFronts) bool { return slices.Contains(n.Nodes, node) })
	return r.Nodes[i]
}
