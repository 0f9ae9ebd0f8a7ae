// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func front(s string, protocol inet.Protocol) Front {
	a := netip.MustParseAddrPort(s)
	return Front{a.Addr(), protocol, a.Port()}
}

func backend(s string) Backend {
	a := netip.MustParseAddrPort(s)
	return Backend{a.Addr(), a.Port()}
}

// addresses returns a set.
func addresses(list ...string) (e inet.Elements) {
	for _, a := range list {
		e = e.With(inet.Element{Addr: addr(a)})
	}
	return e
}

// example has a front for each branch of Eval.
func example() *Program {
	web, dns := front("10.96.0.1:80", inet.TCP), front("10.96.0.1:53", inet.UDP)
	empty, silent := front("10.96.0.2:80", inet.TCP), front("10.96.0.3:80", inet.TCP)
	external, sticky := front("192.0.2.1:443", inet.TCP), front("10.96.0.4:80", inet.TCP)
	nodePort := Front{Protocol: inet.TCP, Port: 30080}
	slots := func(f Front, sticky Seconds, list ...string) (all []Slot) {
		for i, b := range list {
			all = append(all, Slot{f, uint16(i), sticky, backend(b)})
		}
		return all
	}
	own, other := "10.244.0.7:8080", "10.244.1.7:8080"
	var all []Slot
	all = append(all, slots(web, 0, own, other)...)
	all = append(all, slots(dns, 0, "10.244.0.9:53")...)
	all = append(all, slots(external, 0, own, other)...)
	all = append(all, slots(sticky, 60, own, other)...)
	all = append(all, slots(nodePort, 0, own, other)...)
	both := Pick{Count: 2, Masquerade: Strangers}
	return &Program{
		Family: inet.IPv4,
		Routes: immutable.Of(
			Route{Front: web, Inside: both, Outside: both},
			Route{Front: dns, Inside: Pick{Count: 1}, Outside: Pick{Count: 1, Masquerade: Always}},
			Route{Front: empty, Inside: Pick{Otherwise: Reject}, Outside: Pick{Otherwise: Reject}},
			Route{Front: silent, Inside: Pick{Otherwise: Drop}, Outside: Pick{Otherwise: Reject}},
			Route{Front: external, Inside: both, Outside: Pick{First: 1, Count: 1}, Admission: "office"},
			Route{Front: sticky, Inside: both, Outside: both, Sticky: 60},
			Route{Front: nodePort, Inside: both, Outside: Pick{Count: 1}},
		),
		Slots:            immutable.Of(all...),
		ClusterAddresses: addresses("10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4"),
		ServiceRanges:    []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		NodeAddresses:    []netip.Addr{addr("198.51.100.1")},
		ClusterPods:      []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		NodePods:         []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")},
		Loops:            addresses("10.244.0.7", "10.244.0.9"),
		Admissions: []Admission{{Name: "office", Ranges: []netip.Prefix{
			netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("203.0.113.0/24")}}},
	}
}

const (
	ownPod, otherPod = "10.244.0.7", "10.244.1.7"
	localPod         = "10.244.0.3"
	thirdPod         = "10.244.2.2"
	office, stranger = "203.0.113.5", "8.8.8.8"
	node             = "198.51.100.1"
)

func TestEachBranch(t *testing.T) {
	tests := []struct {
		name, src, dst string
		protocol       inet.Protocol
		choice         int
		want           string
	}{
		{"a pod keeps its source", thirdPod, "10.96.0.1:80", inet.TCP, 1, "to 10.244.1.7:8080"},
		{"the first slot", thirdPod, "10.96.0.1:80", inet.TCP, 0, "to 10.244.0.7:8080"},
		{"a stranger", stranger, "10.96.0.1:80", inet.TCP, 0, "to 10.244.0.7:8080, masqueraded"},
		{"the node", node, "10.96.0.1:80", inet.TCP, 1, "to 10.244.1.7:8080, masqueraded"},
		{"a pod to itself", ownPod, "10.96.0.1:80", inet.TCP, 0, "to 10.244.0.7:8080, masqueraded"},
		{"a pod to another", ownPod, "10.96.0.1:80", inet.TCP, 1, "to 10.244.1.7:8080"},
		{"to itself on another node", otherPod, "10.96.0.1:80", inet.TCP, 1, "to 10.244.1.7:8080"},
		{"another protocol", thirdPod, "10.96.0.1:80", inet.UDP, 0, "rejected"},
		{"another port", thirdPod, "10.96.0.1:81", inet.TCP, 0, "rejected"},
		{"no port", thirdPod, "10.96.0.1:0", 1, 0, "rejected"},
		{"a port per protocol", localPod, "10.96.0.1:53", inet.UDP, 0, "to 10.244.0.9:53"},
		{"always", stranger, "10.96.0.1:53", inet.UDP, 0, "to 10.244.0.9:53, masqueraded"},
		{"no backend", thirdPod, "10.96.0.2:80", inet.TCP, 0, "rejected"},
		{"no backend inside, silently", localPod, "10.96.0.3:80", inet.TCP, 0, "dropped"},
		{"no backend outside", stranger, "10.96.0.3:80", inet.TCP, 0, "rejected"},
		{"an address that no Service has", thirdPod, "10.96.9.9:80", inet.TCP, 0, "dropped"},
		{"inside by an external address", localPod, "192.0.2.1:443", inet.TCP, 0, "to 10.244.0.7:8080"},
		{"outside by an external address", office, "192.0.2.1:443", inet.TCP, 0, "to 10.244.1.7:8080"},
		{"not admitted inside", thirdPod, "192.0.2.1:443", inet.TCP, 0, "dropped"},
		{"not admitted outside", stranger, "192.0.2.1:443", inet.TCP, 0, "dropped"},
		{"another port of an external address", office, "192.0.2.1:80", inet.TCP, 0, "not ours"},
		{"a node port from outside", stranger, "198.51.100.1:30080", inet.TCP, 0, "to 10.244.0.7:8080"},
		{"a node port from inside", localPod, "198.51.100.1:30080", inet.TCP, 1, "to 10.244.1.7:8080"},
		{"a node port from another node's pod", thirdPod, "198.51.100.1:30080", inet.TCP, 1, "to 10.244.0.7:8080"},
		{"a node port from the node", node, "198.51.100.1:30080", inet.TCP, 1, "to 10.244.1.7:8080, masqueraded"},
		{"a node port elsewhere", stranger, "198.51.100.2:30080", inet.TCP, 0, "not ours"},
		{"another port of the node", stranger, "198.51.100.1:22", inet.TCP, 0, "not ours"},
		{"a backend itself", thirdPod, "10.244.0.7:8080", inet.TCP, 0, "not ours"},
		{"the other family", "fd00::1", "[fd00::2]:80", inet.TCP, 0, "not ours"},
	}
	p := example()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := netip.MustParseAddrPort(tt.dst)
			packet := Packet{Protocol: tt.protocol, Src: addr(tt.src), Dst: to.Addr(), DstPort: to.Port(), FromNode: tt.src == node}
			got, _ := Eval(p, packet, Memory{}, func(n int) int { return tt.choice % n })
			if got.String() != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// without returns the example after a backend of the sticky front went: the other is number 0.
func withoutFirst(p *Program, f Front) *Program {
	next := *p
	r, _ := p.Route(f)
	next.Routes = next.Routes.Without(r)
	r.Inside.Count, r.Outside.Count = 1, 1
	next.Routes = next.Routes.With(r)
	first, _ := p.Slot(f, 0)
	second, _ := p.Slot(f, 1)
	next.Slots = next.Slots.Without(first).Without(second)
	second.Number = 0
	next.Slots = next.Slots.With(second)
	return &next
}

func TestAStickyClientComesBack(t *testing.T) {
	p, f := example(), front("10.96.0.4:80", inet.TCP)
	var m Memory
	connect := func(p *Program, client string, at Seconds, choice int) string {
		var o Outcome
		o, m = Eval(p, Packet{Protocol: f.Protocol, Src: addr(client), Dst: f.Addr, DstPort: f.Port, At: at}, m,
			func(count int) int { return choice % count })
		return o.Backend.String()
	}
	own, other := "10.244.0.7:8080", "10.244.1.7:8080"
	for _, step := range []struct {
		what, client string
		at           Seconds
		choice       int
		want         string
	}{
		{"the first time", thirdPod, 0, 1, other},
		{"again", thirdPod, 59, 0, other},
		{"each connection counts", thirdPod, 118, 0, other},
		{"another client", office, 119, 0, own},
		{"too late", thirdPod, 178, 0, own},
		{"the new one", thirdPod, 179, 1, own},
	} {
		if got := connect(p, step.client, step.at, step.choice); got != step.want {
			t.Errorf("%s: got %s, want %s", step.what, got, step.want)
		}
	}
	less := withoutFirst(p, f)
	if err := less.Check(); err != nil {
		t.Fatal(err)
	}
	if got := connect(less, thirdPod, 180, 0); got != other {
		t.Errorf("after its backend went: got %s, want %s", got, other)
	}
	if got := connect(p, thirdPod, 181, 0); got != other {
		t.Errorf("after its backend came back: got %s, want %s", got, other)
	}
}

// What is left to IPVS is masqueraded for the same clients.
func TestLeavingToIPVS(t *testing.T) {
	for m, want := range map[Masquerade][2]string{Never: {"left", "left"}, Strangers: {"left", "left, masqueraded"},
		Always: {"left, masqueraded", "left, masqueraded"}} {
		p, f := example(), front("10.96.0.1:80", inet.TCP)
		r, _ := p.Route(f)
		p.Routes = p.Routes.Without(r)
		r.Inside, r.Outside = Pick{Otherwise: Leave, Masquerade: m}, Pick{Otherwise: Leave, Masquerade: m}
		p.Routes = p.Routes.With(r)
		for i, src := range []string{thirdPod, stranger} {
			packet := Packet{Protocol: f.Protocol, Src: addr(src), Dst: f.Addr, DstPort: f.Port}
			got, _ := Eval(p, packet, Memory{}, func(int) int { t.Error("a backend was chosen"); return 0 })
			if got.String() != want[i] {
				t.Errorf("%d from %s: got %s, want %s", m, src, got, want[i])
			}
		}
	}
}

func TestSchedulersHaveTheKernelsNames(t *testing.T) {
	for name, want := range map[string]Schedule{"rr": {}, "lc": {Scheduler: LeastConnection},
		"sh+fallback": {SourceHash, Fallback}, "dh": {Scheduler: DestinationHash}, "mh+port+third": {Maglev, ByPort | Third}} {
		if got := want.String(); got != "scheduler "+name {
			t.Errorf("got %q, want %q", got, "scheduler "+name)
		}
		scheduler, _, _ := strings.Cut(name, "+")
		if got, ok := ParseScheduler(scheduler); !ok || got != want.Scheduler {
			t.Errorf("%s is parsed as %s, %v", scheduler, got, ok)
		}
	}
	if got, ok := ParseScheduler("wrr"); ok || got != RoundRobin {
		t.Errorf("wrr is parsed as %s, %v", got, ok)
	}
}

// Check refuses such a program; a packet that met it would not be let in.
func TestAnAdmissionWithoutAListAdmitsNobody(t *testing.T) {
	p := example()
	p.Admissions = nil
	f := front("192.0.2.1:443", inet.TCP)
	packet := Packet{Protocol: f.Protocol, Src: addr(office), Dst: f.Addr, DstPort: f.Port}
	if got, _ := Eval(p, packet, Memory{}, func(int) int { return 0 }); got.Fate != Dropped {
		t.Errorf("got %s", got)
	}
}

// A front that is not sticky remembers nobody, and neither does a refusal.
func TestOthersAreNotRemembered(t *testing.T) {
	p := example()
	for _, to := range []string{"10.96.0.1:80", "10.96.0.2:80", "10.96.9.9:80"} {
		f := front(to, inet.TCP)
		_, m := Eval(p, Packet{Protocol: f.Protocol, Src: addr(thirdPod), Dst: f.Addr, DstPort: f.Port}, Memory{},
			func(int) int { return 0 })
		if m.visits.Len() > 0 {
			t.Errorf("%s: the client is remembered", f)
		}
	}
}

func TestCheckFindsWhatNoBackendCanRender(t *testing.T) {
	web := front("10.96.0.1:80", inet.TCP)
	route := func(change func(r *Route)) func(p *Program) {
		return func(p *Program) {
			r, _ := p.Route(web)
			p.Routes = p.Routes.Without(r)
			change(&r)
			p.Routes = p.Routes.With(r)
		}
	}
	for want, spoil := range map[string]func(p *Program){
		"front 10.96.0.1 port 80/tcp: slots are missing among 0+3": route(func(r *Route) { r.Inside = Pick{Count: 3} }),
		"front 10.96.0.1 port 80/tcp: slots are missing among 1+2": route(func(r *Route) { r.Outside = Pick{First: 1, Count: 2} }),
		"front 10.96.0.1 port 80/tcp: more than 65535 slots":       route(func(r *Route) { r.Inside = Pick{First: 65535, Count: 1} }),
		"front 10.96.0.1 port 80/tcp: there is no admission x":     route(func(r *Route) { r.Admission = "x" }),
		"front 10.96.0.1 port 80/1: protocol 1 has no ports":       route(func(r *Route) { r.Front.Protocol = 1 }),
		"front fd00::1 port 80/tcp: not a front of IPv4":           route(func(r *Route) { r.Front.Addr = addr("fd00::1") }),
		"two routes of front 10.96.0.1 port 80/tcp":                func(p *Program) { p.Routes = p.Routes.With(Route{Front: web}) },
		"front 10.96.0.1 port 80/tcp: two slots 0":                 func(p *Program) { p.Slots = p.Slots.With(Slot{Front: web, Backend: backend("10.0.0.1:1")}) },
		"slot 2 of 10.96.0.1 port 80/tcp: not a backend of the family: [fd00::1]:1": func(p *Program) {
			p.Slots = p.Slots.With(Slot{Front: web, Number: 2, Backend: backend("[fd00::1]:1")})
		},
		"slot 2 of 10.96.0.1 port 80/tcp: no route of the front with the affinity 1s": func(p *Program) {
			p.Slots = p.Slots.With(Slot{Front: web, Number: 2, Sticky: 1, Backend: backend("10.0.0.1:1")})
		},
		"not an address of IPv4: fd00::1":          func(p *Program) { p.Loops = p.Loops.With(inet.Element{Addr: addr("fd00::1")}) },
		"not an address for node ports: 127.0.0.1": func(p *Program) { p.NodeAddresses = append(p.NodeAddresses, addr("127.0.0.1")) },
		"admission office is not in its place":     func(p *Program) { p.Admissions = append(p.Admissions, p.Admissions[0]) },
		"not a range of IPv4: 10.96.0.1/16":        func(p *Program) { p.ServiceRanges[0] = netip.PrefixFrom(addr("10.96.0.1"), 16) },
	} {
		p := example()
		spoil(p)
		if err := p.Check(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestText(t *testing.T) {
	const want = `family IPv4
front node port 30080/tcp inside 0+2 masquerade strangers outside 0+1
front 10.96.0.1 port 53/udp inside 0+1 outside 0+1 masquerade
front 10.96.0.1 port 80/tcp inside 0+2 masquerade strangers outside 0+2 masquerade strangers
front 10.96.0.2 port 80/tcp inside reject outside reject
front 10.96.0.3 port 80/tcp inside drop outside reject
front 10.96.0.4 port 80/tcp inside 0+2 masquerade strangers outside 0+2 masquerade strangers sticky 60s
front 192.0.2.1 port 443/tcp inside 0+2 masquerade strangers outside 1+1 admits office
slot node port 30080/tcp 0: 10.244.0.7:8080
slot node port 30080/tcp 1: 10.244.1.7:8080
slot 10.96.0.1 port 53/udp 0: 10.244.0.9:53
slot 10.96.0.1 port 80/tcp 0: 10.244.0.7:8080
slot 10.96.0.1 port 80/tcp 1: 10.244.1.7:8080
slot 10.96.0.4 port 80/tcp 0: 10.244.0.7:8080 sticky 60s
slot 10.96.0.4 port 80/tcp 1: 10.244.1.7:8080 sticky 60s
slot 192.0.2.1 port 443/tcp 0: 10.244.0.7:8080
slot 192.0.2.1 port 443/tcp 1: 10.244.1.7:8080
cluster address 10.96.0.1
cluster address 10.96.0.2
cluster address 10.96.0.3
cluster address 10.96.0.4
service range 10.96.0.0/16
node address 198.51.100.1
cluster pods 10.244.0.0/16
node pods 10.244.0.0/24
loop 10.244.0.7
loop 10.244.0.9
admission office
  range 10.244.0.0/24
  range 203.0.113.0/24
`
	if got := example().String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Contains((&Program{Family: inet.IPv6}).String(), "front") {
		t.Error("an empty program has a front")
	}
}
