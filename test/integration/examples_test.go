// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/http"
	"testing"

	"github.com/podwall/podwall/internal/lab/packet"
)

func everything(flow) bool { return true }

// examples says by hand which flows each example leaves open.
func examples() []struct {
	name string
	open func(flow) bool
} {
	return []struct {
		name string
		open func(flow) bool
	}{
		{"1-same-namespace", func(f flow) bool {
			return !in(f.to, "nsa") || f.fromOwnNode() || in(f.from, "nsa")
		}},
		{"2-deny-ingress", func(f flow) bool {
			return !in(f.to, "nsa") || f.fromOwnNode()
		}},
		{"3-from-namespace", func(f flow) bool {
			return !in(f.to, "nsa") || f.fromOwnNode() || in(f.from, "nsb") && f.is(packet.TCP, 6379)
		}},
		{"4-egress-to-cidr", func(f flow) bool {
			return !in(f.from, "nsa") || f.to.Name == "cidr" && f.dst.Is4() && f.is(packet.TCP, 5978)
		}},
		{"5-ingress-from-cidr", func(f flow) bool {
			return !in(f.to, "default") || f.fromOwnNode() || f.from.Name == "cidr" && f.dst.Is4() && f.is(packet.TCP, 80)
		}},
	}
}

func TestExamplesAreTrueOnBothWirings(t *testing.T) {
	onBothWirings(t, func(t *testing.T, w *world) {
		w.stays("before the agents start")
		var agents []*agent
		for _, node := range []string{"node1", "node2"} {
			a := w.agent(node).ready()
			agents = append(agents, a)
			if code, body := a.Get("/healthz"); code != http.StatusOK || body != "OK" {
				t.Errorf("%s: /healthz answers %d %q, want 200 OK", node, code, body)
			}
		}
		w.stays("without a policy")
		for _, e := range examples() {
			p := w.example(e.name)
			w.createPolicy(p)
			w.becomes(e.name+" applied", e.open)
			w.deletePolicy(p)
			w.becomes(e.name+" removed", everything)
		}
		for _, a := range agents {
			s := a.status()
			if !s.Ready || s.DriftRepairs != 0 || len(s.Problems) > 0 || len(s.Diagnostics) > 0 {
				t.Errorf("%s: status at the end is %+v, want ready and nothing else to say", a.name, s)
			}
		}
	})
}
