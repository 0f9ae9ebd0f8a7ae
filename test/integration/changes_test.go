// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/lab/packet"
)

// changing is the policy of the test: pods with tier=back are open to clients
// of the namespace on port 80, and to green namespaces on port 6379.
const changing = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: changing, namespace: nsa}
spec:
  podSelector: {matchLabels: {tier: back}}
  ingress:
  - from: [{podSelector: {matchLabels: {client: "yes"}}}]
    ports: [{port: 80}]
  - from: [{namespaceSelector: {matchLabels: {team: green}}}]
    ports: [{port: 6379}]
`

// meaning is what the policy means at one moment.
type meaning struct {
	subject string
	clients []string // names of pods
	green   string   // namespace
	port    uint16   // for the green namespace
	gone    string   // a pod that is wired and that the API does not have
}

func (m meaning) open(f flow) bool {
	switch {
	case f.fromOwnNode():
		return true
	case m.gone != "" && (f.from.Name == m.gone || f.to.Name == m.gone):
		return false // nobody knows it
	case f.to.Name != m.subject:
		return true
	case slices.Contains(m.clients, f.from.Name):
		return f.is(packet.TCP, 80)
	}
	return m.green != "" && in(f.from, m.green) && f.is(packet.TCP, m.port)
}

func TestChangesTakeEffect(t *testing.T) {
	onBothWirings(t, func(t *testing.T, w *world) {
		for _, node := range []string{"node1", "node2"} {
			w.agent(node).ready()
		}
		w.createPolicy(w.parsePolicy([]byte(changing)))
		w.stays("a policy that selects nobody")

		m := meaning{subject: "nsa/a1", port: 6379}
		w.labelPod("nsa/a1", `{"tier":"back"}`)
		w.becomes("a pod gets the label of the subject", m.open)

		m.clients = []string{"nsa/a2"}
		w.labelPod("nsa/a2", `{"client":"yes"}`)
		w.becomes("a pod gets the label of a peer", m.open)

		m.clients = []string{"nsa/a2", "nsa/a3"}
		w.labelPod("nsa/a3", `{"client":"yes"}`)
		w.becomes("a pod of another node gets the label of a peer", m.open)

		m.green = "nsb"
		w.labelNamespace("nsb", `{"team":"green"}`)
		w.becomes("a namespace gets the label of a peer", m.open)

		m.port = 5978
		w.editPolicy("nsa/changing", func(s *networkingv1.NetworkPolicySpec) {
			port := intstr.FromInt32(5978)
			s.Ingress[1].Ports[0].Port = &port
		})
		w.becomes("the policy names another port", m.open)

		m.clients = []string{"nsa/a2"}
		m.gone = "nsa/a3"
		w.deletePod(m.gone)                                      // the lab's pod goes on sending
		w.flows = slices.DeleteFunc(w.flows, func(f flow) bool { // its errors are dropped and counted like all that it sends
			return f.to.Name == m.gone && f.proto == packet.UDP && f.fromOwnNode()
		})
		w.becomes("a peer is deleted", m.open)

		m.green = ""
		w.labelNamespace("nsb", `{"team":null}`)
		w.becomes("a namespace loses the label of a peer", m.open)

		w.replaceSubject(m)
	})
}

// replaceSubject deletes the isolated pod and gives its addresses to a pod that
// no policy selects: what held for the addresses must not hold for it.
func (w *world) replaceSubject(m meaning) {
	w.t.Helper()
	ips := w.bed.Pod(key(m.subject)).Addrs
	w.unwire(m.gone)
	w.deletePod(m.subject)
	w.unwire(m.subject)
	w.pod("nsb/b2", "node1", ips)
	w.ask()
	// Until the agents know it, the new pod is closed in both directions.
	w.now = func(f flow) bool { return f.to.Name != "nsb/b2" && f.from.Name != "nsb/b2" || f.fromOwnNode() }
	w.becomes("the address of a deleted pod goes to another one", everything)
}
