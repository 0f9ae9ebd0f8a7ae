// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// A pod that is isolated is judged, whatever is to be audited too.
func TestWhatIsolatesComesBeforeWhatAudits(t *testing.T) {
	p := &program.Program{
		Pods: []program.Pod{{Addr: netip.MustParseAddr("10.0.0.1"), Name: "a/p", Ingress: "in", Egress: "out",
			AuditIngress: "audited", AuditEgress: "audited"}},
		Chains: []*program.Chain{{Name: "in", Direction: program.Ingress, Family: inet.IPv4},
			{Name: "out", Direction: program.Egress, Family: inet.IPv4}},
	}
	text := ruleset.Render(p, program.Node{}).String()
	for _, jump := range []string{`"a/p" : jump in,`, `"a/p" : jump out `} {
		if !strings.Contains(text, jump) {
			t.Errorf("no entry with %q:\n%s", jump, text)
		}
	}
}
