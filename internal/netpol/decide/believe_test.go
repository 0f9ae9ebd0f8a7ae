// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// claimed are pods at these addresses, all isolated.
func claimed(addrs ...string) *program.Program {
	p := &program.Program{Chains: []*program.Chain{{Name: "ingress4-web", Direction: program.Ingress,
		Family: inet.IPv4}}}
	for _, a := range addrs {
		p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr(a), Name: "shop/at-" + a, Tenant: "shop",
			Ingress: "ingress4-web"})
	}
	return p
}

func TestWhichAddressesMayBeThoseOfPods(t *testing.T) {
	for _, c := range []struct {
		name              string
		path              *inet.Path
		routed, announced bool
		stray             bool
	}{
		{"an interface of pods", &inet.Path{}, false, false, false},
		{"an interface of others", &inet.Path{Elsewhere: true}, false, false, true},
		{"no route", nil, false, false, false},
		{"a gateway, or the node", nil, true, false, true},
		{"a gateway, but the runtime knows it", nil, true, true, false},
		{"an interface of others, but the runtime knows it", &inet.Path{Elsewhere: true}, false, true, false},
	} {
		p := claimed("10.0.0.1")
		addr := p.Pods[0].Addr
		w := Wiring{Paths: map[netip.Addr]inet.Path{}, Routed: map[netip.Addr]bool{addr: c.routed},
			Announced: map[netip.Addr]bool{addr: c.announced}}
		if c.path != nil {
			w.Paths[addr] = *c.path
		}
		got := strays(p, w)
		if got[addr] != c.stray {
			t.Errorf("%s: left out is %t, want %t", c.name, got[addr], c.stray)
		}
	}
}

func TestWhatIsLeftOutIsTheSameSliceAgain(t *testing.T) {
	var b belief
	p := claimed("10.0.0.1", "10.0.0.2")
	if got := b.leave(p, nil); got != p {
		t.Error("nothing is left out, and the program is another one")
	}
	out := map[netip.Addr]bool{p.Pods[0].Addr: true}
	first := b.leave(p, out).Pods
	if len(first) != 1 || first[0].Addr != p.Pods[1].Addr || len(p.Pods) != 2 {
		t.Fatalf("left are %v of %v", first, p.Pods)
	}
	if again := b.leave(p, map[netip.Addr]bool{p.Pods[0].Addr: true}).Pods; &again[0] != &first[0] {
		t.Error("the same is another slice")
	}
	if other := b.leave(p, map[netip.Addr]bool{p.Pods[1].Addr: true}).Pods; other[0].Addr != p.Pods[0].Addr {
		t.Error("what is left out is another pod, and the slice is the same")
	}
	next := claimed("10.0.0.1", "10.0.0.3")
	if other := b.leave(next, out).Pods; other[0].Addr != next.Pods[1].Addr {
		t.Error("the pods are others, and the slice is the same")
	}
}
