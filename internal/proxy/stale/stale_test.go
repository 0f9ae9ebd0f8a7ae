// SPDX-License-Identifier: Apache-2.0

package stale_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/stale"
)

// entryOf returns the entry that the kernel makes for a packet: where Eval sends it, or as it is.
func entryOf(p *program.Program, packet program.Packet, choose func(int) int) (inet.Connection, bool) {
	o, _ := program.Eval(p, packet, program.Memory{}, choose)
	to := program.Backend{Addr: packet.Dst, Port: packet.DstPort}
	switch o.Fate {
	case program.Dropped, program.Rejected:
		return inet.Connection{}, false
	case program.Forwarded:
		to = o.Backend
	}
	const clientPort = 40000
	return inet.Connection{Protocol: packet.Protocol,
		Orig:  inet.Tuple{Src: packet.Src, SrcPort: clientPort, Dst: packet.Dst, DstPort: packet.DstPort},
		Reply: inet.Tuple{Src: to.Addr, SrcPort: to.Port, Dst: packet.Src, DstPort: clientPort}}, true
}

// drawPacket draws one that is in most cases of UDP, to what is a front now and then.
func drawPacket(t *rapid.T, p *program.Program) program.Packet {
	packet := genproxy.Packet(t, p)
	if rapid.IntRange(0, 3).Draw(t, "UDP") > 0 {
		packet.Protocol = inet.UDP
	}
	return packet
}

// differsInUDP reports whether two programs differ in a UDP front or in its slots.
func differsInUDP(a, b *program.Program) bool {
	added, removed := b.Routes.Diff(a.Routes)
	more, less := b.Slots.Diff(a.Slots)
	return slices.ContainsFunc(slices.Concat(added, removed), func(r program.Route) bool {
		return r.Front.Protocol == inet.UDP
	}) || slices.ContainsFunc(slices.Concat(more, less), func(s program.Slot) bool { return s.Front.Protocol == inet.UDP })
}

// frontOf returns the front of a program that an entry is to.
func frontOf(p *program.Program, e inet.Connection) (program.Front, bool) {
	f := program.Front{Addr: e.Orig.Dst, Protocol: e.Protocol, Port: e.Orig.DstPort}
	if _, ok := p.Route(f); ok {
		return f, true
	}
	if !slices.Contains(p.NodeAddresses, e.Orig.Dst) {
		return f, false
	}
	f.Addr = netip.Addr{}
	_, ok := p.Route(f)
	return f, ok
}

// led reports whether an entry leads to a backend of its front.
func led(p *program.Program, f program.Front, e inet.Connection) bool {
	for s := range p.Slots.All() {
		if s.Front == f && s.Backend == (program.Backend{Addr: e.Reply.Src, Port: e.Reply.SrcPort}) {
			return true
		}
	}
	return false
}

// A table that follows the changes, of which several may wait for one judge, has no UDP entry that leads elsewhere
// than to a backend of its front, or past a front; it loses no entry that leads to one, nor any that is not ours, nor
// one of another protocol.
func TestTheTableFollowsThePrograms(t *testing.T) {
	deleted, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := genproxy.Program(t, rapid.SampledFrom(inet.Families[:]).Draw(t, "family"))
		var table []inet.Connection
		var waiting *stale.Judge
		past := []*program.Program{p} // since the table was read
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			for range rapid.IntRange(0, 8).Draw(t, "packets") {
				packet := drawPacket(t, p)
				if e, ok := entryOf(p, packet, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }); ok {
					table = append(table, e)
				}
			}
			next := genproxy.Change(t, p)
			j := stale.After(p, next, nil, nil)
			if len(j.Needed()) > 0 && !differsInUDP(p, next) {
				t.Fatal("nothing about UDP changes, and the table would be read")
			}
			if j.Add(waiting); j.MayWait() && rapid.Bool().Draw(t, "waits") {
				waiting, p, past = j, next, append(past, next)
				continue
			}
			var left []inet.Connection
			for _, e := range table {
				f, ours := frontOf(next, e)
				before := slices.ContainsFunc(past, func(p *program.Program) bool { _, was := frontOf(p, e); return was })
				past := e.Reply.Src == e.Orig.Dst && e.Reply.SrcPort == e.Orig.DstPort
				fine := e.Protocol != inet.UDP || ours && led(next, f, e) || !ours && (!before || past)
				if got := j.Stale(e); got == fine {
					t.Fatalf("an entry to %s that leads to %s is stale: %t, want %t; before\n%safter\n%s", f,
						e.Reply.Src, got, !fine, p, next)
				}
				if !fine {
					if deleted++; !slices.Contains(j.Needed(), e.Protocol) {
						t.Fatalf("an entry to %s is stale, and the table would not be read", f)
					}
					continue
				}
				kept++
				left = append(left, e)
			}
			table, waiting, p, past = left, nil, next, []*program.Program{next}
			if stale.After(nil, p, nil, nil).MayWait() {
				t.Fatal("a process that begins here may look at entries later")
			}
			for _, e := range table { // and it finds nothing to delete
				if f, ours := frontOf(p, e); ours && stale.After(nil, p, nil, nil).Stale(e) {
					t.Fatalf("at the start, an entry to %s that leads to %s is stale", f, e.Reply.Src)
				}
			}
		}
	})
	if deleted == 0 || kept == 0 {
		t.Errorf("%d entries were deleted and %d kept", deleted, kept)
	}
}

// What the histories above cannot have: a process that begins, entries from before the first backend, and
// backends that are leaving.
func TestEntriesFromBefore(t *testing.T) {
	address := func(n int) netip.Addr { return genproxy.Addr(inet.IPv4, 0, n) }
	f := program.Front{Addr: address(1), Protocol: inet.UDP, Port: 53}
	none := program.Pick{Otherwise: program.Reject}
	empty := &program.Program{Family: inet.IPv4, ServiceRanges: []netip.Prefix{netip.PrefixFrom(address(0), 24)}}
	waiting := *empty
	waiting.Routes = waiting.Routes.With(program.Route{Front: f, Inside: none, Outside: none})
	ready := *empty
	one := program.Pick{Count: 1}
	ready.Routes = ready.Routes.With(program.Route{Front: f, Inside: one, Outside: one})
	backend := program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, 1), Port: 5353}
	ready.Slots = ready.Slots.With(program.Slot{Front: f, Backend: backend})
	entry := func(to program.Backend) inet.Connection {
		client := genproxy.Addr(inet.IPv4, 2, 9)
		return inet.Connection{Protocol: inet.UDP, Orig: inet.Tuple{Src: client, SrcPort: 1, Dst: f.Addr, DstPort: f.Port},
			Reply: inet.Tuple{Src: to.Addr, SrcPort: to.Port, Dst: client, DstPort: 1}}
	}
	past := program.Backend{Addr: f.Addr, Port: f.Port}
	other := program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, 2), Port: 5353}
	leaving := func(of program.Front, b program.Backend) bool { return of == f && b == other }
	for _, tt := range []struct {
		name     string
		old, now *program.Program
		serving  stale.Serving
		to       program.Backend
		want     bool
	}{
		{"past the Service, when it comes", empty, &ready, nil, past, true},
		{"past a Service without backends, when it comes", empty, &waiting, nil, past, true},
		{"past the Service, at its first backend", &waiting, &ready, nil, past, true},
		{"past the Service, without a change", &ready, &ready, nil, past, false},
		{"past the Service, at the start", nil, &ready, nil, past, true},
		{"to its backend, at the start", nil, &ready, nil, backend, false},
		{"to another backend, at the start", nil, &ready, nil, other, true},
		{"to a backend that is leaving", nil, &ready, leaving, other, false},
		{"to a backend that went, and no other came", &ready, &waiting, nil, backend, true},
		{"to a backend of a Service that is leaving", &ready, &waiting, leaving, other, false},
		{"to a Service of an earlier process", nil, empty, nil, backend, true},
		{"past an address that no Service has", nil, empty, nil, past, false},
	} {
		j := stale.After(tt.old, tt.now, tt.serving, nil)
		if got := j.Stale(entry(tt.to)); got != tt.want || got && !slices.Contains(j.Needed(), entry(tt.to).Protocol) {
			t.Errorf("%s: stale %t, want %t; entries are read of %v", tt.name, got, tt.want, j.Needed())
		}
	}
}

// A backend that was left its clients is judged again when it serves no more, though no program changes then.
func TestABackendThatServesNoMore(t *testing.T) {
	f := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.UDP, Port: 53}
	backend := func(n int) program.Backend { return program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, n), Port: 5353} }
	of := func(b program.Backend) *program.Program {
		p := &program.Program{Family: inet.IPv4}
		p.Routes = p.Routes.With(program.Route{Front: f, Inside: program.Pick{Count: 1}, Outside: program.Pick{Count: 1}})
		p.Slots = p.Slots.With(program.Slot{Front: f, Backend: b})
		return p
	}
	client := genproxy.Addr(inet.IPv4, 2, 9)
	entry := inet.Connection{Protocol: inet.UDP, Orig: inet.Tuple{Src: client, SrcPort: 1, Dst: f.Addr, DstPort: f.Port},
		Reply: inet.Tuple{Src: backend(1).Addr, SrcPort: 5353, Dst: client, DstPort: 1}}
	serves := true
	leaving := func(_ program.Front, b program.Backend) bool { return serves && b == backend(1) }
	first, next := of(backend(1)), of(backend(2))
	j := stale.After(first, next, leaving, nil)
	if j.Stale(entry) || len(j.Left()) != 1 {
		t.Fatalf("while the backend serves: stale, or not left its clients: %v", j.Left())
	}
	for range 2 { // it may take long
		if j = stale.After(next, next, leaving, j.Left()); len(j.Needed()) > 0 || len(j.Left()) != 1 {
			t.Fatalf("while it goes on to serve: %v is read, left are %v", j.Needed(), j.Left())
		}
	}
	serves = false
	if j = stale.After(next, next, leaving, j.Left()); len(j.Needed()) != 1 || !j.Stale(entry) || len(j.Left()) > 0 {
		t.Errorf("when it serves no more: %v is read, left are %v", j.Needed(), j.Left())
	}
}

// A TCP connection that was begun while the proxy's rules were away is ended, so that its next try meets them;
// all other TCP connections are left alone.
func TestConnectionsBegunWithoutRules(t *testing.T) {
	front := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.TCP, Port: 80}
	backend := program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, 1), Port: 8080}
	pick := program.Pick{Count: 1}
	p := &program.Program{Family: inet.IPv4}
	p.Routes = p.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick})
	p.Slots = p.Slots.With(program.Slot{Front: front, Backend: backend})
	client := genproxy.Addr(inet.IPv4, 2, 9)
	entry := func(port uint16, to program.Backend, opening bool) inet.Connection {
		return inet.Connection{Protocol: inet.TCP, Opening: opening,
			Orig:  inet.Tuple{Src: client, SrcPort: 1, Dst: front.Addr, DstPort: port},
			Reply: inet.Tuple{Src: to.Addr, SrcPort: to.Port, Dst: client, DstPort: 1}}
	}
	past, elsewhere := program.Backend{Addr: front.Addr, Port: 80}, program.Backend{Addr: front.Addr, Port: 81}
	for _, tt := range []struct {
		name  string
		old   *program.Program
		entry inet.Connection
		want  bool
	}{
		{"being opened past the Service, at the start", nil, entry(80, past, true), true},
		{"being opened past the Service, later", p, entry(80, past, true), false},
		{"open, past the Service", nil, entry(80, past, false), false},
		{"being opened to a backend", nil, entry(80, backend, true), false},
		{"being opened at a port that is not the Service's", nil, entry(81, elsewhere, true), false},
	} {
		if got := stale.After(tt.old, p, nil, nil).Stale(tt.entry); got != tt.want {
			t.Errorf("%s: stale %t, want %t", tt.name, got, tt.want)
		}
	}
}

// What IPVS chose leads nowhere where IPVS does not serve, although the backend is one of the front.
func TestEntriesOfIPVS(t *testing.T) {
	front := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.UDP, Port: 53}
	nodePort := program.Front{Protocol: inet.UDP, Port: 30053}
	backend := program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, 1), Port: 5353}
	node, client := genproxy.Addr(inet.IPv4, 1, 1), genproxy.Addr(inet.IPv4, 2, 9)
	pick := program.Pick{Count: 1}
	p := &program.Program{Family: inet.IPv4, NodeAddresses: []netip.Addr{node}}
	for _, f := range []program.Front{front, nodePort} {
		p.Routes = p.Routes.With(program.Route{Front: f, Inside: pick, Outside: pick})
		p.Slots = p.Slots.With(program.Slot{Front: f, Backend: backend})
	}
	less := *p
	less.Slots = less.Slots.With(program.Slot{Front: front, Number: 1, Backend: program.Backend{Addr: backend.Addr, Port: 1}})
	entry := func(dst netip.Addr, port uint16, balanced bool) inet.Connection {
		return inet.Connection{Protocol: inet.UDP, Balanced: balanced,
			Orig:  inet.Tuple{Src: client, SrcPort: 1, Dst: dst, DstPort: port},
			Reply: inet.Tuple{Src: backend.Addr, SrcPort: backend.Port, Dst: client, DstPort: 1}}
	}
	for _, tt := range []struct {
		name  string
		old   *program.Program
		ipvs  bool
		entry inet.Connection
		want  bool
	}{
		{"of IPVS, at the start", nil, false, entry(front.Addr, 53, true), true},
		{"of IPVS to a node port, at the start", nil, false, entry(node, 30053, true), true},
		{"of IPVS, where IPVS serves", nil, true, entry(front.Addr, 53, true), false},
		{"of the tables, at the start", nil, false, entry(front.Addr, 53, false), false},
		{"of the tables, where IPVS serves", nil, true, entry(front.Addr, 53, false), false},
		{"of IPVS, when a backend went", &less, false, entry(front.Addr, 53, true), true},
		{"of IPVS, when another front changed", &less, false, entry(node, 30053, true), false},
		{"of another program's IPVS", nil, false, entry(genproxy.Addr(inet.IPv4, 7, 7), 53, true), false},
	} {
		j := stale.After(tt.old, p, nil, nil)
		j.IPVS = tt.ipvs
		if got := j.Stale(tt.entry); got != tt.want {
			t.Errorf("%s: stale %t, want %t", tt.name, got, tt.want)
		}
	}
}
