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

func TestIsolatedPodsWithoutAnInterfaceAreReportedAfterAWhile(t *testing.T) {
	start := time.Unix(0, 0)
	addr := netip.MustParseAddr
	p := &filter.Program{Pods: []filter.Pod{
		{Addr: addr("10.0.0.1"), Name: "a/isolated", Ingress: "x"},
		{Addr: addr("10.0.0.2"), Name: "a/open"},
		{Addr: addr("10.0.0.3"), Name: "a/here", Egress: "y"},
	}}
	paths := map[netip.Addr]links.Path{addr("10.0.0.3"): {Link: "veth3"}}
	u := unreached{}
	u.update(p, paths, start)
	if got := u.problems(start.Add(grace - 1)); got != nil {
		t.Errorf("within the grace: %+v, want nothing", got)
	}
	u.update(p, paths, start.Add(grace))
	got := u.problems(start.Add(grace))
	if len(got) != 1 || got[0].Blocking || !strings.Contains(got[0].Text, "a/isolated (10.0.0.1)") || strings.Contains(got[0].Text, "a/open") {
		t.Errorf("after the grace: %+v, want one problem that names a/isolated", got)
	}
	paths[addr("10.0.0.1")] = links.Path{Link: "veth1"}
	u.update(p, paths, start.Add(grace))
	if len(u) != 0 || u.problems(start.Add(2*grace)) != nil {
		t.Errorf("once it is there: %+v, want nothing", u)
	}
}
