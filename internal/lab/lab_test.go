// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
)

func TestEverybodyReachesEverybody(t *testing.T) {
	eachWiring(t, func(t *testing.T, b *bed) {
		b.T = t
		b.small()
		b.mustArrive(b.matrix())
	})
}

func TestPodsAndHostsComeAndGo(t *testing.T) {
	eachWiring(t, func(t *testing.T, b *bed) {
		b.small()
		key := cluster.Key{Namespace: "x", Name: "b"}
		b.prober.Remove("x/b")
		b.prober.Remove("near")
		if err := b.RemovePod(key); err != nil {
			t.Fatal(err)
		}
		if err := b.RemoveHost("near"); err != nil {
			t.Fatal(err)
		}
		b.pod("x/b", "node2", "10.244.2.6", "fd00:244:2::6")
		b.pod("z/new", "node1", "10.244.1.6", "fd00:244:1::6")
		b.host("again", "10.244.1.200", "fd00:244:1::c8")
		b.mustArrive(b.matrix())
	})
}

func TestAPodMayHaveAnAddressOfAnotherNodesRange(t *testing.T) {
	for _, w := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(w), func(t *testing.T) {
			b := newBed(t, lab.Config{Wiring: w, Nodes: []string{"node1", "node2"}})
			b.small()
			b.pod("z/stray", "node2", "10.244.1.77", "fd00:244:1::77")
			b.mustArrive(b.matrix())
		})
	}
}

func TestAServiceReachesItsBackends(t *testing.T) {
	eachWiring(t, func(t *testing.T, b *bed) {
		b.small()
		b.pod("y/d", "node2", "10.244.2.6", "fd00:244:2::6")
		services := []lab.Service{
			service("10.96.0.10:80", packet.TCP, "10.244.2.5:8080", "10.244.2.6:8080"),
			service("10.96.0.10:80", packet.UDP, "10.244.2.5:8080", "10.244.2.6:8080"),
			service("[fd00:96::10]:80", packet.TCP, "[fd00:244:2::5]:8080", "[fd00:244:2::6]:8080"),
			service("[fd00:96::10]:80", packet.SCTP, "[fd00:244:2::5]:8080", "[fd00:244:2::6]:8080"),
		}
		if err := b.SetServices(services); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, s := range services {
			for range 20 {
				for _, from := range []string{"x/a", "node1"} {
					f := b.flow(b.find(from), nil, s.Front.Addr(), s.Proto)
					a := b.oneArrival(f)
					seen[s.Proto.String()+" "+a.Endpoint] = true
					if a.Dst.Port() != 8080 {
						t.Errorf("%s to %s: arrived at port %d, want 8080", s.Proto, s.Front, a.Dst.Port())
					}
				}
			}
		}
		want := map[string]bool{"tcp y/c": true, "tcp y/d": true, "udp y/c": true, "udp y/d": true, "sctp y/c": true, "sctp y/d": true}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("backends reached (-want +got):\n%s", diff)
		}
	})
}

func TestAPodThatReachesItselfThroughAServiceIsMasqueraded(t *testing.T) {
	for _, w := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(w), func(t *testing.T) {
			b := newBed(t, lab.Config{Wiring: w, Nodes: []string{"node1", "node2"}})
			b.small()
			for _, s := range []lab.Service{service("10.96.0.10:80", packet.TCP, "10.244.1.5:8080"),
				service("[fd00:96::10]:80", packet.TCP, "[fd00:244:1::5]:8080")} {
				if err := b.SetServices([]lab.Service{s}); err != nil {
					t.Fatal(err)
				}
				a := b.oneArrival(b.flow(b.find("x/a"), nil, s.Front.Addr(), s.Proto))
				if a.Endpoint != "x/a" || a.Src.Addr() == a.Dst.Addr() {
					t.Errorf("arrived at %s from %s to %s, want x/a from its node", a.Endpoint, a.Src, a.Dst)
				}
			}
		})
	}
}

func service(front string, proto packet.Protocol, backends ...string) lab.Service {
	s := lab.Service{Front: netip.MustParseAddrPort(front), Proto: proto}
	for _, b := range backends {
		s.Backends = append(s.Backends, netip.MustParseAddrPort(b))
	}
	return s
}

// oneArrival sends one probe, wants it answered, and returns where it arrived.
func (b *bed) oneArrival(f flow) probe.Arrival {
	b.Helper()
	ids := b.send([]flow{f})
	// First the arrival: the answer may be read before it.
	if _, err := b.prober.Collect(b.Context(), ids, nil, time.Now().Add(2*time.Second)); err != nil {
		b.Fatal(err)
	}
	if missing := b.prober.WaitReplies(b.Context(), ids, time.Now().Add(2*time.Second)); len(missing) > 0 {
		b.Errorf("%s from %s to %s: no answer", f.Proto, f.From, f.Dst)
	}
	list := b.prober.Arrived(f.ID)
	if len(list) != 1 {
		b.Fatalf("%s from %s to %s: %d arrivals, want 1: %v", f.Proto, f.From, f.Dst, len(list), list)
	}
	return list[0]
}

func TestAnAddressIsGivenOnce(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Bridge, Nodes: []string{"node1"}})
	b.pod("x/a", "node1", "10.244.1.5")
	for _, ip := range []string{"10.244.1.5", "10.244.1.1", "172.30.0.11"} {
		if _, err := b.AddHost("h", addrs([]string{ip})); err == nil || !strings.Contains(err.Error(), "used by") {
			t.Errorf("host with %s: got error %v, want one that says who uses it", ip, err)
		}
	}
	if _, err := b.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: "x", Name: "g"}, Node: "node1", IPs: addrs([]string{"10.244.9.1"})}); err == nil {
		t.Error("a pod got the address of the bridge")
	}
	b.host("h", "10.244.1.7") // the failures left nothing in the way
	b.mustArrive(b.matrix())
}

func TestBridgesDoNotFilterAtFirst(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Bridge, Nodes: []string{"node1"}})
	err := b.Node("node1").NS.Do(func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			got, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + name)
			if os.IsNotExist(err) {
				continue // the kernel cannot filter bridged packets at all
			}
			if err != nil {
				return err
			}
			if strings.TrimSpace(string(got)) != "0" {
				t.Errorf("bridge-nf-call-%s is %q, want 0", name, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	eachWiring(t, func(t *testing.T, _ *bed) {}) // what the runtime keeps open is open by now
	before := traces(t)
	for _, w := range wirings(t) {
		t.Run(string(w), func(t *testing.T) {
			b := newBed(t, lab.Config{Wiring: w, Nodes: []string{"node1", "node2"}, CNIBin: os.Getenv("PODWALL_CNI_BIN")})
			b.small()
		})
	}
	if diff := cmp.Diff(before, traces(t)); diff != "" {
		t.Errorf("what a bed left behind (-before +after):\n%s", diff)
	}
}

// traces are the links of this process's own namespace and its open files.
func traces(t *testing.T) map[string][]string {
	t.Helper()
	links, err := os.ReadDir("/proc/self/net/dev_snmp6")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, l := range links {
		found["links"] = append(found["links"], l.Name())
	}
	for _, f := range files {
		target, err := os.Readlink("/proc/self/fd/" + f.Name())
		if err != nil {
			continue // the directory that was being read
		}
		kind, _, _ := strings.Cut(target, ":")
		found["files"] = append(found["files"], f.Name()+" "+kind)
	}
	return found
}

func TestABedIsQuick(t *testing.T) {
	for _, w := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(w), func(t *testing.T) {
			start := time.Now()
			b := newBed(t, lab.Config{Wiring: w, Nodes: []string{"node1", "node2"}})
			for i := range 9 {
				node, ip := "node1", netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + i)})
				if i%2 == 1 {
					node, ip = "node2", netip.AddrFrom4([4]byte{10, 244, 2, byte(10 + i)})
				}
				b.pod("x/p"+string(rune('0'+i)), node, ip.String())
			}
			t.Logf("bed of 2 nodes and 9 pods: %v", time.Since(start))
			var flows []flow
			for len(flows) < 500 {
				flows = append(flows, b.matrix()...)
			}
			flows = flows[:500]
			start = time.Now()
			b.mustArrive(flows)
			t.Logf("500 probes, with their answers: %v", time.Since(start))
			if lost, err := b.prober.Lost(); err != nil || lost != 0 {
				t.Errorf("lost %d packets, error %v", lost, err)
			}
		})
	}
}
