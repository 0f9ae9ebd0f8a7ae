// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/netpol/program"

	"github.com/podwall/podwall/internal/kernel/nft"
)

// Whose an address was decides which connections are deleted when an agent takes
// a table over: those of an earlier owner, and none of the pod that still has it.
func TestATableSaysWhoseAnAddressWas(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	now := program.Pod{Addr: addr, Name: "shop/web", ID: "uid-2"}
	long := program.Pod{Addr: addr, Name: "shop/" + strings.Repeat("web", 60), ID: "uid-2"}
	tests := []struct {
		name    string
		comment string
		pod     program.Pod
		same    bool
	}{
		{"the same", "shop/web uid-2", now, true},
		{"another of the same name", "shop/web uid-1", now, false},
		{"another", "shop/db uid-0", now, false},
		{"of a time without UIDs", "shop/web", now, true},
		{"clipped", nft.Clip(podComment(long)), long, true},
		{"nobody says", "", now, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := &nft.Set{Name: "pod-ingress4", Key: nft.Addr4, Map: true,
				Entries: []nft.Entry{{Key: addrKey(addr), Verdict: nft.Verdict{Kind: nft.Accept}, Comment: tt.comment}}}
			got := LocalPods(&nft.Table{Sets: []*nft.Set{to}}, &program.Program{Pods: []program.Pod{tt.pod}})
			if len(got) != 1 || got[0].Addr != addr {
				t.Fatalf("local pods are %v", got)
			}
			if same := got[0].Name == tt.pod.Name && got[0].ID == tt.pod.ID; same != tt.same {
				t.Errorf("it was %q %q: the same %t, want %t", got[0].Name, got[0].ID, same, tt.same)
			}
		})
	}
}
