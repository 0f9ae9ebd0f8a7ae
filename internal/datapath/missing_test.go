// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/links"
)

func TestPodsThatCannotBeFoundAreReportedAfterAWhile(t *testing.T) {
	start := time.Unix(0, 0)
	addr := netip.MustParseAddr
	p := &filter.Program{Pods: []filter.Pod{
		{Addr: addr("10.0.0.1"), Name: "a/isolated", Ingress: "x"},
		{Addr: addr("10.0.0.2"), Name: "a/open"},
		{Addr: addr("10.0.0.3"), Name: "a/here", Egress: "y"},
		{Addr: addr("10.0.0.4"), Name: "a/bridged"},
		{Addr: addr("10.0.0.5"), Name: "a/macvlan", Ingress: "x"},
		{Addr: addr("10.0.0.6"), Name: "a/macvlan-open"},
		{Addr: addr("10.0.0.7"), Name: "a/claimed", Ingress: "x"},
	}}
	bridge := links.Path{Link: "cni0", Bridge: true}
	paths := map[netip.Addr]links.Path{addr("10.0.0.3"): {Link: "veth3"}, addr("10.0.0.4"): bridge,
		addr("10.0.0.5"): {Link: "eth0", Beside: true}, addr("10.0.0.6"): {Link: "eth0", Beside: true}}
	d := &Datapath{unreached: missing{}, unbound: missing{}, bypassed: missing{}, unclear: missing{}}
	unclear := map[netip.Addr]string{addr("10.0.0.7"): "the ports a, b have it"}
	if d.lookForPods(p, paths, unclear, start); d.lookForPods(p, paths, unclear, start.Add(grace-1)) != nil {
		t.Error("a problem within the grace")
	}
	got := d.lookForPods(p, paths, unclear, start.Add(grace))
	if len(got) != 4 || !got[0].Blocking || !got[1].Blocking || got[2].Blocking || got[3].Blocking {
		t.Fatalf("after the grace: %+v, want four problems", got)
	}
	for i, want := range []string{"a/macvlan (10.0.0.5)", "a/claimed (10.0.0.7: the ports a, b have it)", "a/isolated (10.0.0.1)", "a/bridged (10.0.0.4)"} {
		if !strings.HasSuffix(got[i].Text, ": "+want) {
			t.Errorf("after the grace: %q, want it to name %s alone", got[i].Text, want)
		}
	}
	bridge.Port = "veth4"
	clear(unclear)
	paths[addr("10.0.0.7")] = links.Path{Link: "veth7"}
	paths[addr("10.0.0.1")], paths[addr("10.0.0.4")] = links.Path{Link: "veth1"}, bridge
	paths[addr("10.0.0.5")] = links.Path{Link: "veth5"}
	if got := d.lookForPods(p, paths, unclear, start.Add(2*grace)); got != nil || len(d.unreached)+len(d.unbound)+len(d.bypassed) != 0 {
		t.Errorf("once they are there: %+v, want nothing", got)
	}
}
