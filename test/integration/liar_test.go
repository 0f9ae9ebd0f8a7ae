// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/lab"
)

const closedNamespace = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: liars}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
`

// liars makes pods of node1, isolated in both directions, whose statuses name
// addresses of others.
func (w *world) liars() {
	w.t.Helper()
	w.createNamespace("liars")
	w.createPolicy(w.parsePolicy([]byte(closedNamespace)))
	test := datapath.SelfTestAddresses()
	for name, ips := range map[string][]netip.Addr{
		"node": w.bed.Node("node1").Addrs, "server": serverAddrs(), "self-test": {test[0], test[2]},
		"outside": addrs("93.184.216.34", "2001:db8:cafe::1"), "loopback": addrs("127.0.0.1", "::1"),
	} {
		w.createPod("liars/"+name, "node1", ips)
	}
}

// Pods that claim the addresses of the node, the API server, the self-test and a
// host outside take nothing away from anybody: neither while the agent runs nor
// when it starts anew does the node lose its API server, every change is enforced,
// and the node is ready. Who lies is named.
func TestAPodThatClaimsAnAddressOfOthersHurtsNobody(t *testing.T) {
	for name, c := range map[string]struct {
		wiring lab.Wiring
		args   []string
	}{
		"routed": {lab.Routed, nil}, "bridge": {lab.Bridge, nil}, "filter": {lab.Routed, []string{"--datapath=filter"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSmallWorld(t, c.wiring)
			a := w.agent("node1", c.args...).ready()
			w.stays("before the lies")
			w.liars()
			a.await("the liars' names", func() bool { return len(namedLiars(a)) == 4 })
			if got, want := namedLiars(a), []string{"loopback", "node", "self-test", "server"}; !slices.Equal(got, want) {
				t.Errorf("named are %v, want %v", got, want)
			}
			w.stays("pods lie")
			w.denyIngress()
			w.becomes("a policy comes beside the lies", openWhenDenied)
			a.ready()
			a.Kill()
			w.stays("the agent is dead")
			a = w.agent("node1", c.args...).ready()
			w.stays("the agent is there again")
			w.deletePolicy(w.example("2-deny-ingress"))
			w.becomes("the policy goes beside the lies", everything)
			if s := a.status(); !s.Ready {
				t.Errorf("not ready: %v", s.NotReady)
			}
		})
	}
}

// namedLiars returns the pods about which there is an error in the status, sorted.
func namedLiars(a *agent) (names []string) {
	for _, d := range a.status().Diagnostics {
		if d.Kind == cluster.KindPod && strings.HasPrefix(d.Field, "status.podIPs") && !slices.Contains(names, d.Object.Name) {
			names = append(names, d.Object.Name)
		}
	}
	slices.Sort(names)
	return names
}
