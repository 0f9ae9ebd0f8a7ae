// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/sysctl"
)

func TestTheSkeletonIsClosedAndTakenOver(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		skeleton := func() string {
			t.Helper()
			if err := Skeleton(t.Context(), []string{"veth0", "br0", "nothing"}, nil, log); err != nil {
				t.Fatal(err)
			}
			return listing(t)
		}
		run(t, "ip", "link", "add", "br0", "type", "bridge")
		run(t, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
		first := skeleton()
		for _, want := range []string{"iifname != @non-pod-links jump antispoof", `elements = { "br0" }`, "nf_call_iptables=0"} {
			if !strings.Contains(first, want) {
				t.Errorf("the skeleton lacks %q:\n%s", want, first)
			}
		}
		if second := skeleton(); second != first {
			t.Errorf("a second time it is other:\n%s", second)
		}
		index, _ := links.BridgeIndex("br0")
		if found, err := links.EnforceBridge(sysctl.Default, index); err != nil || !found.All() {
			t.Errorf("the bridge does not show its packets: %+v %v", found, err)
		}
		d := open(t, Options{})
		healthy(t, d, isolated())
		if taken := listing(t); !strings.Contains(taken, "nf_call_iptables=0") || !strings.Contains(taken, `elements = { "br0" }`) {
			t.Errorf("the agent forgot what the skeleton found:\n%s", taken)
		}
		run(t, "ip", "link", "add", "br1", "type", "bridge")
		healthy(t, open(t, Options{}), isolated())
		if isIn(t, "pod-bridges", "br1") || !isIn(t, "non-pod-links", "br1") {
			t.Error("a bridge without pods is not open")
		}
		if err := Skeleton(t.Context(), []string{"br1"}, nil, log); err != nil {
			t.Fatal(err)
		}
		if !isIn(t, "pod-bridges", "br1") || isIn(t, "non-pod-links", "br1") || !strings.Contains(listing(t), "ingress4-web") {
			t.Errorf("with the agent's table:\n%s", listing(t))
		}
	})
}

// A timeout does not prove that an agent runs: with the table of a dead agent the pod would count as
// closed, but be filtered as the previous pod with its address.
func TestASkeletonThatIsLateIsAnError(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		apply(t, open(t, Options{}), isolated())
		late, cancel := context.WithCancel(t.Context())
		cancel()
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		if err := Skeleton(late, []string{"veth0"}, nil, log); err == nil {
			t.Error("the pod counts as closed")
		}
		if alive, err := agentLives(late); err == nil {
			t.Errorf("the agent counts as known: %t", alive)
		}
		defer alive(t)()
		if alive, err := agentLives(t.Context()); err != nil || !alive {
			t.Errorf("an agent that lives: %t, %v", alive, err)
		}
	})
}

// The table of an agent that died before the first bridge has no chain for bridges.
func TestTheSkeletonBringsTheChainsOfABridge(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		healthy(t, open(t, Options{}), isolated())
		run(t, "ip", "link", "add", "br0", "type", "bridge")
		if err := Skeleton(t.Context(), []string{"br0"}, nil, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"type nat hook prerouting", "iifname @pod-bridges jump multicast",
			"chain multicast-to-pods", "ingress4-web"} {
			if !strings.Contains(listing(t), want) {
				t.Errorf("the table lacks %q:\n%s", want, listing(t))
			}
		}
	})
}

func isIn(t *testing.T, set, link string) bool {
	t.Helper()
	return strings.Contains(run(t, "nft", "list", "set", "inet", "podwall", set), `"`+link+`"`)
}
