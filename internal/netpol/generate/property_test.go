// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/generate"
	"github.com/podwall/podwall/internal/netpol/lint"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

var start = time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)

// question is a flow between two ends of a random cluster.
type question struct {
	src, dst *cluster.Pod // nil for the outside
	protocol cluster.Protocol
	port     uint16
}

func outside() netip.Addr { return netip.MustParseAddr("203.0.113.7") }

func (q question) addr(p, other *cluster.Pod) netip.Addr {
	if p == nil {
		return outside()
	}
	i := slices.IndexFunc(p.IPs, func(a netip.Addr) bool {
		return other == nil && a.Is4() || other != nil && slices.ContainsFunc(other.IPs, func(b netip.Addr) bool {
			return a.Is4() == b.Is4()
		})
	})
	if i < 0 {
		return netip.Addr{}
	}
	return p.IPs[i]
}

func (q question) flow() oracle.Flow {
	end := func(p, other *cluster.Pod) oracle.Endpoint {
		if p == nil {
			return oracle.Outside(outside())
		}
		return oracle.Endpoint{Pod: p.Key, Addr: q.addr(p, other)}
	}
	return oracle.Flow{Protocol: q.protocol, Port: q.port, Src: end(q.src, q.dst), Dst: end(q.dst, q.src)}
}

// possible reports whether the ends have addresses of one family.
func (q question) possible() bool {
	return (q.src != nil || q.dst != nil) && q.addr(q.src, q.dst).IsValid() && q.addr(q.dst, q.src).IsValid()
}

func (q question) record(direction string, isolating []cluster.Key) denied.Record {
	end := func(p, other *cluster.Pod) denied.End {
		e := denied.End{Address: q.addr(p, other)}
		if p != nil {
			e.Pod = &p.Key
		}
		return e
	}
	protocol := map[cluster.Protocol]string{cluster.TCP: "tcp", cluster.UDP: "udp"}[q.protocol]
	return denied.Record{Verdict: denied.WouldDeny, Direction: direction, Protocol: protocol, Port: q.port, Count: 2,
		First: start, Last: start.Add(time.Minute), Source: end(q.src, q.dst), Destination: end(q.dst, q.src),
		Policies: isolating}
}

// questions are all flows between the ends of a cluster, at some ports.
func questions(snap *cluster.Snapshot) (list []question) {
	ends := []*cluster.Pod{nil}
	for _, p := range snap.Pods {
		if p.Networked() {
			ends = append(ends, p)
		}
	}
	for _, src := range ends {
		for _, dst := range ends {
			for _, q := range []question{{src, dst, cluster.TCP, 80}, {src, dst, cluster.UDP, 80}, {src, dst, cluster.TCP, 81}} {
				if q.possible() {
					list = append(list, q)
				}
			}
		}
	}
	return list
}

// auditing returns a cluster in which every pod is audited in both directions, and every namespace exists.
func auditing(t *rapid.T) *cluster.Snapshot {
	snap := *gen.Snapshot(t)
	snap.Pods = slices.Clone(snap.Pods)
	snap.Policies, snap.Namespaces = nil, nil
	for i, p := range snap.Pods {
		if one := *p; rapid.IntRange(1, 8).Draw(t, "bare") == 8 {
			one.Labels, snap.Pods[i] = nil, &one
		}
	}
	for _, name := range []string{"a", "ab", "b"} {
		snap.Namespaces = append(snap.Namespaces, &cluster.Namespace{Name: name,
			Labels: cluster.NewLabels(map[string]string{"kubernetes.io/metadata.name": name})})
		snap.Policies = append(snap.Policies, &cluster.Policy{Key: cluster.Key{Namespace: name, Name: "all"}, Audit: true,
			Subject: cluster.Everything(), IsolatesIngress: true, IsolatesEgress: true})
	}
	return &snap
}

// enforced is the cluster with the generated policies and no others.
func enforced(t *rapid.T, snap *cluster.Snapshot, r generate.Result) *cluster.Snapshot {
	now := *snap
	now.Policies = nil
	for _, np := range r.Policies {
		p, found := convert.Policy(np)
		if len(found) > 0 {
			t.Fatalf("%s: %v", p.Key, found)
		}
		now.Policies = append(now.Policies, p)
	}
	return &now
}

// given says what was seen of a side: between pods of the same labels, at a port.
type given struct {
	direction, subject, peer string
	protocol                 cluster.Protocol
	port                     uint16
}

func (q question) given(direction string) given {
	name := func(p *cluster.Pod) string {
		if p == nil {
			return "outside"
		}
		return p.Key.Namespace + " " + p.Labels.String()
	}
	g := given{direction, name(q.dst), name(q.src), q.protocol, q.port}
	if direction == "egress" {
		g.subject, g.peer = g.peer, g.subject
	}
	return g
}

// Generated policies allow every flow that was given, and deny every other one of the pods and the
// directions that they isolate; lint has no question about them.
func TestPoliciesAllowWhatWasSeenAndNothingElse(t *testing.T) {
	allowed, closed, left := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		snap := auditing(t)
		all := questions(snap)
		var records []denied.Record
		saw, isolated := map[given]bool{}, map[given]bool{}
		for range rapid.IntRange(1, 12).Draw(t, "flows") {
			if len(all) == 0 {
				return
			}
			q := rapid.SampledFrom(all).Draw(t, "flow")
			now, audit := oracle.Judge(snap, q.flow()), oracle.Audit(snap, q.flow())
			for direction, would := range map[string]bool{"ingress": oracle.WouldDeny(now.Ingress, audit.Ingress),
				"egress": oracle.WouldDeny(now.Egress, audit.Egress)} {
				if !would {
					continue
				}
				records = append(records, q.record(direction, audit.Ingress.Isolating))
				g := q.given(direction)
				if bare(q.src) || bare(q.dst) {
					left++
					continue
				}
				saw[g], isolated[given{direction: direction, subject: g.subject}] = true, true
			}
		}
		r := generate.Policies(generate.Input{Snap: snap, Records: records, From: start, To: start.Add(time.Hour),
			Chosen: func(cluster.Key) bool { return true }})
		after := enforced(t, snap, r)
		for _, q := range all {
			a := oracle.Judge(after, q.flow())
			for direction, reason := range map[string]oracle.Reason{"ingress": a.Ingress, "egress": a.Egress} {
				g := q.given(direction)
				want := oracle.NotIsolated
				switch {
				case direction == "ingress" && q.dst == nil, direction == "egress" && q.src == nil:
					want = oracle.NoSubject
				case q.src == q.dst:
					want = oracle.Self
				case saw[g]:
					want = oracle.Rule
					allowed++
				case isolated[given{direction: direction, subject: g.subject}]:
					want = oracle.NoRule
					closed++
				}
				if reason.Cause != want {
					t.Fatalf("%s of %+v: %v, want %v\n%s", direction, q.flow(), reason, want, gen.Describe(after))
				}
			}
		}
		for _, f := range lint.All(after, lint.Facts{}) {
			if f.Kind != lint.NoDNS { // that none was seen is not a mistake of the policy
				t.Fatalf("lint: %v\n%s", f, gen.Describe(after))
			}
		}
	})
	if allowed == 0 || closed == 0 || left == 0 {
		t.Errorf("%d flows allowed, %d denied, %d left out", allowed, closed, left)
	}
}

// bare reports whether no policy can select the pod without all others.
func bare(p *cluster.Pod) bool { return p != nil && len(p.Labels) == 0 }
