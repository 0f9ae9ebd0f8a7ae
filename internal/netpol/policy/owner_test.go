// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

func (w *world) terminating(name, node, ip, text string) func(*cluster.Tx) {
	p := &cluster.Pod{Key: keyOf(name), Node: node, Labels: labelsOf(text), IPs: []netip.Addr{netip.MustParseAddr(ip)},
		Terminating: true}
	return func(tx *cluster.Tx) { tx.SetPod(p) }
}

// While a pod that is being deleted still names its address, another pod may
// have it: then the labels of the other count, in every namespace's sets.
func TestAPodThatIsBeingDeletedLendsItsLabelsToNobody(t *testing.T) {
	for _, heir := range []string{"shop/heir", "other/heir"} {
		w := newWorld()
		w.set(w.namespace("shop", ""), w.namespace("other", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"))
		w.set(w.policy("shop/p", "app=web", "role=admin"), w.terminating("shop/old", "two", "10.0.0.2", "role=admin"))
		if got := w.members(t); got != "10.0.0.2" {
			t.Errorf("before there is an heir: members = %q, want the pod that is being deleted", got)
		}
		w.set(w.pod(heir, "two", "10.0.0.2", "role=guest"))
		if got := w.members(t); got != "" {
			t.Errorf("with the heir %s: members = %q, want none", heir, got)
		}
		w.set(w.noPod(heir))
		if got := w.members(t); got != "10.0.0.2" {
			t.Errorf("after the heir %s: members = %q, want the pod that is being deleted", heir, got)
		}
	}
}
