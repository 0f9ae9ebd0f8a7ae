// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Closed interfaces without a known pod are reported: a routed one, and a port of a pod bridge. Those of
// known pods, of the node, and of other bridges are not.
func TestClosedInterfacesWithoutAKnownPodAreNamed(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		pod := func(name, master string) {
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", ns.Path())
			if master != "" {
				run(t, "ip", "link", "set", name, "master", master)
			}
			run(t, "ip", "link", "set", name, "up")
		}
		run(t, "ip", "link", "add", "cni0", "type", "bridge")
		run(t, "ip", "link", "add", "docker0", "type", "bridge")
		run(t, "ip", "link", "add", "here", "type", "veth", "peer", "name", "too")
		pod("known", "")
		pod("stranger", "")
		pod("port", "cni0")
		pod("docked", "docker0")
		run(t, "ip", "route", "add", "10.244.1.5", "dev", "known")
		d := open(t, Options{})
		r := healthy(t, d, isolated())
		if want := []string{"port", "stranger"}; !slices.Equal(r.WithoutPod, want) {
			t.Errorf("strangers %v, want %v", r.WithoutPod, want)
		}
		r = healthy(t, open(t, Options{Uplinks: []string{"stra*"}}), &program.Program{})
		if want := []string{"known", "port"}; !slices.Equal(r.WithoutPod, want) {
			t.Errorf("strangers %v, want %v", r.WithoutPod, want)
		}
		if r = healthy(t, open(t, Options{Options: decide.Options{OpenUnknown: true}}),
			&program.Program{}); r.WithoutPod != nil {
			t.Errorf("strangers %v where unknown pods are open, want none", r.WithoutPod)
		}
	})
}
