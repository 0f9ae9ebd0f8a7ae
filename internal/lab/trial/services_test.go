// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/source/manifest"
)

// What agents read about the lab's Services is understood whole: each front and each backend is there, and those
// that are pods have their node.
func TestServicesAreWrittenAsAgentsReadThem(t *testing.T) {
	at := netip.MustParseAddrPort
	services := []lab.Service{
		{Front: at("10.96.0.1:80"), Proto: packet.TCP, Backends: []netip.AddrPort{at("10.244.1.1:8080"), at("10.244.2.1:80")}},
		{Front: at("10.96.0.1:53"), Proto: packet.UDP, Backends: []netip.AddrPort{at("192.0.2.1:53")}},
		{Front: at("[fd00:96::1]:80"), Proto: packet.SCTP, Backends: []netip.AddrPort{at("[fd00:244:1::1]:8080")}},
		{Front: at("10.96.0.2:1"), Proto: packet.TCP},
	}
	pods := []lab.PodSpec{{Node: "n1", IPs: []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:244:1::1")}}}
	r, err := manifest.Parse("services.yaml", serviceObjects(services, pods))
	if err != nil {
		t.Fatal(err)
	}
	snap, found := r.Served()
	if len(found) > 0 || len(snap.Services) != 4 || len(snap.Slices) != 4 {
		t.Fatalf("%d Services and %d slices, findings %v", len(snap.Services), len(snap.Slices), found)
	}
	nodes := 0
	for _, s := range snap.Slices {
		for _, e := range s.Endpoints {
			if e.Node == "n1" {
				nodes++
			}
		}
	}
	if nodes != 2 {
		t.Errorf("%d endpoints have their node, want 2", nodes)
	}
}
