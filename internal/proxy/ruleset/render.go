// SPDX-License-Identifier: Apache-2.0

// Package ruleset says what nftables has to hold for a program of the service proxy: Render turns one into
// the content of a table of its family. Services are elements of maps; the chains depend only on how many
// backends there are to choose from and on how clients are treated, and all Services share them. Only
// sticky fronts have chains of their own.
//
// It does not know Kubernetes. Package nft has the language and the connection.
package ruleset

import (
	"net/netip"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
)

// TableName is the name of both tables, of family ip and ip6.
const TableName = "podwall-services"

// Table names the table of a family.
func Table(f inet.Family) nft.TableID { return nft.TableID{Family: nft.FamilyFor(f), Name: TableName} }

// Tables names both.
func Tables() []nft.TableID { return []nft.TableID{Table(inet.IPv4), Table(inet.IPv6)} }

// The priorities of the base chains. Other programs are built around them: the policies of this project
// judge before the masquerade.
const (
	priorityDestination = -100
	prioritySource      = 100
)

// The counters, one for each reason not to forward. A nat chain sees the first packet of a connection only.
const (
	CounterUnknownPort = "reject-unknown-port" // of an address that a Service has
	CounterNoBackend   = "reject-no-backend"
	CounterSilent      = "drop-no-backend"
	CounterUnallocated = "drop-unallocated"  // an address in a service range that no Service has
	CounterNotAdmitted = "drop-not-admitted" // the client is outside the admitted ranges
	CounterMissing     = "drop-missing-slot" // the backend was taken away after it was chosen
)

// Names of the chains and sets that are always there. `reject`, `mark` and `hook` are reserved words of nft
// and cannot be names.
const (
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainPostrouting = "postrouting"
	chainUnknownPort = "unknown-port"
	chainNoBackend   = "no-backend"
	chainSilent      = "no-backend-silent"
	chainLeave       = "leave-to-ipvs"

	setServices      = "services"
	setNodePorts     = "node-ports"
	setBackends      = "backends"
	setPortBackends  = "port-backends"
	setStickies      = "sticky-backends"
	setPortStickies  = "sticky-port-backends"
	setVIPs          = "vips" // after services: a Service is whole before its other ports are rejected
	setServiceRanges = "service-ranges"
	setNodeAddresses = "node-addresses"
	setClusterPods   = "cluster-pods"
	setNodePods      = "node-pods"
	setLoops         = "loops"
	prefixAdmitted   = "admitted-"
	prefixAffinity   = "affinity-"
)

// Settings are what the rules depend on beside the program. The zero value has the defaults.
type Settings struct {
	// Mark is the bit of a packet's mark between the choice of a backend and the masquerade; by default the
	// one that kube-proxy has. No other program may use it.
	Mark uint32
	// Affinity is the number of clients that are remembered for a sticky front. Further ones get a backend
	// at random each time.
	Affinity uint32
	// IPVS says that programs may leave connections to IPVS. It does not tell connection tracking that it
	// translates them, so the mark alone says what is masqueraded.
	IPVS bool
}

// The defaults of Settings.
const (
	DefaultMark     = 0x4000
	DefaultAffinity = 1 << 16
)

func (s Settings) withDefaults() Settings {
	if s.Mark == 0 {
		s.Mark = DefaultMark
	}
	if s.Affinity == 0 {
		s.Affinity = DefaultAffinity
	}
	return s
}

// Render returns the table that does what the program says.
func Render(p *program.Program, s Settings) *nft.Table { return new(Renderer).Render(p, s) }

// Renderer renders one program of a family after another. It counts what each route and each backend of a
// sticky front needs, so that a change costs as much as what changed.
type Renderer struct {
	settings Settings
	last     program.Program
	near     netip.Prefix // what the chains were made for
	needs    needs
	chains   []*nft.Chain // those of needs
	affinity []*nft.Set
	lists    []*nft.Set // those of the program's lists
}

// Render returns what the function of that name returns.
func (r *Renderer) Render(p *program.Program, s Settings) *nft.Table {
	if s = s.withDefaults(); r.settings != s || r.last.Family != p.Family {
		*r = Renderer{settings: s, last: program.Program{Family: p.Family}}
	}
	b := builder{p.Family, s, near(p)}
	if r.needs.change(&r.last, p) || r.chains == nil || r.near != b.near {
		r.chains, r.affinity, r.near = b.chains(&r.needs), b.affinity(&r.needs), b.near
	}
	if r.lists == nil || !sameLists(&r.last, p) {
		r.lists = b.lists(p)
	}
	r.last = *p
	t := &nft.Table{TableID: Table(p.Family), Counters: []string{CounterMissing, CounterSilent, CounterNotAdmitted,
		CounterUnallocated, CounterNoBackend, CounterUnknownPort}}
	t.Sets = append(append(b.contents(p), r.lists...), r.affinity...)
	t.Chains = r.chains
	t.Sort()
	return t
}

func sameLists(a, b *program.Program) bool {
	return immutable.Same(a.ServiceRanges, b.ServiceRanges) && immutable.Same(a.NodeAddresses, b.NodeAddresses) &&
		immutable.Same(a.ClusterPods, b.ClusterPods) && immutable.Same(a.NodePods, b.NodePods) &&
		immutable.Same(a.Admissions, b.Admissions)
}

// builder makes the parts of a table.
type builder struct {
	family   inet.Family
	settings Settings
	near     netip.Prefix
}

// near returns the range of the cluster's pods that has pods of this node, or an invalid prefix.
func near(p *program.Program) netip.Prefix {
	for _, own := range p.NodePods {
		for _, r := range p.ClusterPods {
			if r.Bits() > 0 && r.Bits() <= own.Bits() && r.Contains(own.Addr()) {
				return r
			}
		}
	}
	return netip.Prefix{}
}

// either returns the value of the family.
func either[T any](f inet.Family, four, six T) T {
	if f == inet.IPv6 {
		return six
	}
	return four
}

// contents returns the sets that have elements for each Service or backend.
func (b builder) contents(p *program.Program) []*nft.Set {
	front, slot := either(b.family, nft.Front4, nft.Front6), either(b.family, nft.Slot4, nft.Slot6)
	to := either(b.family, nft.Addr4Port, nft.Addr6Port)
	addr, pair := either(b.family, nft.Addr4, nft.Addr6), either(b.family, nft.Pair4, nft.Pair6)
	return []*nft.Set{
		{Name: setServices, Key: front, Map: true, Content: nft.ContentOf(p.Routes, serviceEntry),
			Comment: "what is done with connections to a Service"},
		{Name: setNodePorts, Key: nft.ProtocolPort, Map: true, Content: nft.ContentOf(p.Routes, nodePortEntry),
			Comment: "the same for node ports"},
		{Name: setBackends, Key: slot, Data: to, Content: nft.ContentOf(p.Slots, backendEntry),
			Comment: "numbered backends"},
		{Name: setPortBackends, Key: nft.PortSlot, Data: to, Content: nft.ContentOf(p.Slots, portBackendEntry),
			Comment: "the same for node ports"},
		{Name: setStickies, Key: slot, Map: true, Behind: true, Content: nft.ContentOf(p.Slots, stickyEntry),
			Comment: "numbered backends of Services with affinity"},
		{Name: setPortStickies, Key: nft.PortSlot, Map: true, Behind: true,
			Content: nft.ContentOf(p.Slots, portStickyEntry),
			Comment: "the same for node ports"},
		{Name: setVIPs, Key: addr, Elements: p.ClusterAddresses, Late: true,
			Comment: "addresses of Services whose other ports are rejected"},
		{Name: setLoops, Key: pair, Content: nft.ContentOf(p.Loops, loopEntry),
			Comment: "a backend of this node to itself"},
	}
}

func serviceEntry(r program.Route) (nft.Entry, bool) {
	return nft.Entry{Key: key(r.Front, 0), Verdict: verdictOf(r)}, r.Front.Addr.IsValid()
}

func nodePortEntry(r program.Route) (nft.Entry, bool) {
	return nft.Entry{Key: key(r.Front, 0), Verdict: verdictOf(r)}, !r.Front.Addr.IsValid()
}

func backendEntry(s program.Slot) (nft.Entry, bool) {
	return backend(s), s.Sticky == 0 && s.Front.Addr.IsValid()
}

func portBackendEntry(s program.Slot) (nft.Entry, bool) {
	return backend(s), s.Sticky == 0 && !s.Front.Addr.IsValid()
}

func backend(s program.Slot) nft.Entry {
	return nft.Entry{Key: key(s.Front, s.Number), To: netip.AddrPortFrom(s.Addr, s.Port)}
}

func stickyEntry(s program.Slot) (e nft.Entry, ok bool) {
	if s.Sticky == 0 || !s.Front.Addr.IsValid() {
		return e, false
	}
	return nft.Entry{Key: key(s.Front, s.Number), Verdict: nft.GoTo(stickOf(s).name())}, true
}

func portStickyEntry(s program.Slot) (e nft.Entry, ok bool) {
	if s.Sticky == 0 || s.Front.Addr.IsValid() {
		return e, false
	}
	return nft.Entry{Key: key(s.Front, s.Number), Verdict: nft.GoTo(stickOf(s).name())}, true
}

func loopEntry(e inet.Element) (nft.Entry, bool) { return nft.Entry{Key: nft.Key{Element: e}}, true }

// key returns the key of a front, or of one of its slots.
func key(f program.Front, number uint16) nft.Key {
	return nft.Key{Element: inet.Element{Addr: f.Addr, Protocol: f.Protocol, Port: f.Port}, Slot: number}
}

// lists returns the sets of the program's lists.
func (b builder) lists(p *program.Program) []*nft.Set {
	addr := either(b.family, nft.Addr4, nft.Addr6)
	interval := func(name, comment string, list []netip.Prefix) *nft.Set {
		return &nft.Set{Name: name, Key: addr, Interval: true, Ranges: ranges(list), Comment: comment}
	}
	node := &nft.Set{Name: setNodeAddresses, Key: addr, Comment: "addresses of the node that take node ports"}
	for _, a := range p.NodeAddresses {
		node.Elements = node.Elements.With(inet.Element{Addr: a})
	}
	sets := []*nft.Set{node,
		interval(setServiceRanges, "addresses that Services are assigned from", p.ServiceRanges),
		interval(setClusterPods, "pods of the cluster: they keep their source", p.ClusterPods),
		interval(setNodePods, "pods of this node", p.NodePods),
	}
	for _, a := range p.Admissions {
		sets = append(sets, interval(prefixAdmitted+a.Name, "clients that may connect", a.Ranges))
	}
	return sets
}
