// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// Of an address that two pods claim nobody knows whose policies would count: nothing is audited. A family
// that is closed would be closed by these policies as well.
func TestWhatIsAudited(t *testing.T) {
	snap := &cluster.Snapshot{Policies: []*cluster.Policy{{Key: cluster.Key{Namespace: "a", Name: "x"}, Audit: true,
		Subject: cluster.Everything(), IsolatesEgress: true, Egress: []cluster.Rule{{Peers: cluster.Peers{Any: true},
			Ports: cluster.Ports{Any: true}}}}}}
	for _, name := range []string{"p", "q"} {
		snap.Pods = append(snap.Pods, &cluster.Pod{Key: cluster.Key{Namespace: "a", Name: name}, Node: "one",
			IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
		want := name == "p"
		for _, closed := range []bool{false, true} {
			p := compile.Program(policy.Resolve(snap, "one"), compile.Options{ClosedIPv4: closed})
			pod := p.Pods[0]
			if pod.Egress != "" || pod.AuditIngress != "" || (pod.AuditEgress != "") != want {
				t.Errorf("with %d pods: %+v", len(snap.Pods), pod)
			}
			if c := p.Chain(pod.AuditEgress); want && (len(c.Rules) == 0) != closed {
				t.Errorf("closed %t: %s", closed, p)
			}
		}
	}
}
