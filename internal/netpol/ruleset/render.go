// SPDX-License-Identifier: Apache-2.0

// Package ruleset says what nftables has to hold for a program: Render turns one into
// the content of podwall's table, RenderBridge into that of the small one of family
// bridge. It is also the only place that reads them again: which
// connections are refused, which pods and settings an earlier process left.
//
// It does not know Kubernetes. Package nft has the language and the connection.
package ruleset

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The priorities of our base chains. A nat chain must come before every other
// nat chain of its hook, since a translation there ends the traversal for the
// connection; the kernel requires more than -200. The filter variant judges after the
// filter chains of other programs (and IPVS), and before source NAT at 100.
const (
	PriorityNAT               = -190
	priorityFilterPostrouting = 99
	priorityFilterInput       = 101
	priorityGuard             = 0
)

// Names of the chains and sets that are always there. `hook` and `ingress` are
// reserved words of nft and cannot be chain names.
const (
	chainPrerouting       = "prerouting"
	chainPostrouting      = "postrouting" // with suffix -filter for type filter,
	chainInput            = "input"       // so that one transaction can swap them
	chainToPod            = "to-pod"
	chainToNode           = "to-node"
	chainMulticast        = "multicast"
	chainMulticastToPods  = "multicast-to-pods"
	chainAntispoof        = "antispoof"
	chainAntispoofBridged = "antispoof-bridged"
	chainTracking         = "tracking"
	chainSelfTest         = "self-test"
	chainGuard            = "guard"
	chainGuarded          = "guarded"
	chainUntracked        = "untracked-input"
	chainUnjudged         = "unjudged-input"

	setNonPodLinks   = "non-pod-links"
	setPodLinks      = "pod-links"
	setIngressLinks  = "ingress-links"
	setEgressLinks   = "egress-links"
	setPodBridges    = "pod-bridges"
	setSavedSettings = "saved-settings"

	// One of each family: with 4 or 6 behind the name.
	setPodIngress   = "pod-ingress"
	setPodEgress    = "pod-egress"
	setLocalPods    = "local-pods"
	setHairpin      = "hairpin"
	setIfaceSource  = "iface-source"
	setGuardIngress = "guard-ingress"
	setGuardEgress  = "guard-egress"
)

// The counters, one for each reason to drop.
const (
	CounterIngress    = "drop-ingress"     // no ingress rule allows it
	CounterEgress     = "drop-egress"      // no egress rule allows it
	CounterUnknownPod = "drop-unknown-pod" // to an address that no pod has
	CounterSpoofed    = "drop-spoofed"     // from an address that no pod has there
	CounterInvalid    = "drop-invalid"     // invalid or untracked
	// CounterBroadcast counts packets to one receiver in broadcast frames.
	CounterBroadcast = "drop-broadcast"
	CounterSelfTest  = "drop-self-test"
)

// SelfTest returns the address that is always listed as an isolated pod: what
// is sent to it must be dropped. Both are from documentation ranges.
func SelfTest(f inet.Family) netip.Addr {
	if f == inet.IPv6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x70, 0x6f, 0x64, 0x77, 0x61, 0x6c, 0x6c, 15: 1})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, 254})
}

// Render returns the table that enforces the program on the node.
func Render(p *program.Program, n program.Node) *nft.Table { return new(Renderer).Render(p, n) }

// Renderer renders one program after another. It caches the chains and pod sets of the
// last one: a program shares unchanged parts with its predecessor, and Diff skips parts
// that are identical.
type Renderer struct {
	chains map[rendition]rendered
	pods   []program.Pod // those of the sets below
	sets   []*nft.Set    // see podSets
	guard  []*nft.Set    // see guardSets
}

// rendition is a chain and how it looks.
type rendition struct {
	chain *program.Chain
	look  look
}

type rendered struct {
	chains   []*nft.Chain
	dispatch *nft.Set
}

// renderChains renders the chains of the program, unless cached.
func (r *Renderer) renderChains(p *program.Program, n program.Node) (list []rendered) {
	kept := make(map[rendition]rendered, len(p.Chains))
	for _, as := range renditions(p, lookOf(n)) {
		done, ok := r.chains[as]
		if !ok {
			done.chains, done.dispatch = renderChain(as.chain, as.look)
		}
		kept[as], list = done, append(list, done)
	}
	r.chains = kept
	return list
}

// renderPods renders the sets that depend on the local pods alone, unless cached.
func (r *Renderer) renderPods(p *program.Program) {
	if r.sets == nil || !immutable.Same(r.pods, p.Pods) {
		r.pods, r.sets, r.guard = p.Pods, podSets(p), guardSets(p)
	}
}

// Render returns what the function of that name returns.
func (r *Renderer) Render(p *program.Program, n program.Node) *nft.Table {
	t := &nft.Table{TableID: Table(), Counters: []string{CounterAuditEgress, CounterAuditIngress, CounterBroadcast,
		CounterEgress, CounterIngress, CounterInvalid, CounterSelfTest, CounterSpoofed, CounterUnknownPod}}
	for _, s := range p.Sets {
		t.Sets = append(t.Sets, renderSet(s))
	}
	r.renderPods(p)
	t.Sets = append(t.Sets, r.sets...)
	t.Sets = append(t.Sets, sourceSets(n.Attached)...)
	t.Sets = append(t.Sets,
		&nft.Set{Name: setNonPodLinks, Key: nft.Interface, Entries: interfaces(nonPodLinks(n)),
			Comment: "interfaces that do not lead to pods"},
		&nft.Set{Name: setPodLinks, Key: nft.Interface, Entries: interfaces(podLinks(n)),
			Comment: "interfaces that lead to pods"},
		&nft.Set{Name: setIngressLinks, Key: nft.Interface, Entries: interfaces(n.Ingress),
			Comment: "interfaces of pods isolated for ingress"},
		&nft.Set{Name: setEgressLinks, Key: nft.Interface, Entries: interfaces(n.Egress),
			Comment: "interfaces of pods isolated for egress"},
		&nft.Set{Name: setPodBridges, Key: nft.Interface, Entries: interfaces(n.ClosedBridges),
			Comment: "bridges that carry or carried pods"},
		&nft.Set{Name: setSavedSettings, Key: nft.Interface, Entries: saved(n.Restore),
			Comment: "settings to restore with --cleanup-config"},
	)
	if !n.NoGuard && !n.FilterHook {
		t.Sets = append(t.Sets, r.guard...)
	}
	if n.Cut {
		t.Sets = append(t.Sets, cutSets()...)
		t.Counters = slices.Sorted(slices.Values(append(t.Counters, CounterCut)))
	}
	t.Chains = baseChains(p, n)
	chains, sets := recordingParts(n, hasAudits(p))
	t.Chains, t.Sets = append(t.Chains, chains...), append(t.Sets, sets...)
	for _, done := range r.renderChains(p, n) {
		t.Chains = append(t.Chains, done.chains...)
		if done.dispatch != nil {
			t.Sets = append(t.Sets, done.dispatch)
		}
	}
	t.Sort()
	return t
}

func renderSet(s *program.Set) *nft.Set {
	r := &nft.Set{Name: s.Name, Comment: s.Comment, Elements: s.Elements, Ranges: s.Ranges,
		Interval: s.Kind == inet.AddrRanges || s.Kind == inet.PortRanges}
	v6 := s.Family == inet.IPv6
	switch s.Kind {
	case inet.AddrPorts:
		r.Key = either(v6, nft.Addr6Port, nft.Addr4Port)
	case inet.PortRanges:
		r.Key = nft.Port
	default:
		r.Key = either(v6, nft.Addr6, nft.Addr4)
	}
	return r
}

func either(v6 bool, six, four nft.KeyType) nft.KeyType {
	if v6 {
		return six
	}
	return four
}

// podSets returns the maps and sets that have one entry for each local pod
// address.
func podSets(p *program.Program) []*nft.Set {
	var sets []*nft.Set
	for _, f := range inet.Families {
		v6 := f == inet.IPv6
		addr, pair := either(v6, nft.Addr6, nft.Addr4), either(v6, nft.Pair6, nft.Pair4)
		self := &nft.Set{Name: perFamily(setHairpin, f), Key: pair, Comment: "a local pod to itself (hairpin)"}
		local := &nft.Set{Name: perFamily(setLocalPods, f), Key: addr, Comment: "addresses of local pods"}
		ingress := &nft.Set{Name: perFamily(setPodIngress, f), Key: addr, Map: true,
			Comment: "ingress verdict per local pod"}
		egress := &nft.Set{Name: perFamily(setPodEgress, f), Key: addr, Map: true,
			Comment: "egress verdict per isolated local pod"}
		n := count(p.Pods, func(pod program.Pod) bool { return inet.FamilyOf(pod.Addr) == f })
		self.Entries, ingress.Entries = make([]nft.Entry, 0, n), make([]nft.Entry, 0, n+1)
		ingress.Entries = append(ingress.Entries, nft.Entry{Key: addrKey(SelfTest(f)),
			Verdict: nft.JumpTo(chainSelfTest), Comment: "self-test"})
		addrs := make([]inet.Element, 0, n)
		for _, pod := range p.Pods {
			if inet.FamilyOf(pod.Addr) != f {
				continue
			}
			e := nft.Entry{Key: addrKey(pod.Addr), Comment: podComment(pod)}
			self.Entries = append(self.Entries, nft.Entry{Key: e.Key})
			addrs = append(addrs, e.Key.Element)
			// Jump: if a packet falls through a chain, what follows drops it.
			in, out := chainsOf(pod)
			ingress.Entries = append(ingress.Entries, judge(e, in))
			if out != "" {
				egress.Entries = append(egress.Entries, judge(e, out))
			}
		}
		local.Elements = immutable.Of(addrs...)
		for _, s := range []*nft.Set{self, ingress, egress} {
			s.Entries = oneEach(s.Entries)
		}
		sets = append(sets, self, local, ingress, egress)
	}
	return sets
}

// open returns the interfaces that are not closed; the node itself never is.
func nonPodLinks(n program.Node) []string {
	if n.OpenUnknown {
		return nil
	}
	return append(slices.Clone(n.Open), "lo")
}

func podLinks(n program.Node) []string {
	links := make([]string, len(n.Attached))
	for i, s := range n.Attached {
		links[i] = s.Link
	}
	return links
}

// sourceSets returns the allowed source addresses per interface.
func sourceSets(list []program.Attachment) []*nft.Set {
	var sets []*nft.Set
	for _, f := range inet.Families {
		s := &nft.Set{Name: perFamily(setIfaceSource, f), Key: either(f == inet.IPv6, nft.InterfaceAddr6,
			nft.InterfaceAddr4), Late: true,
			Comment: "allowed source addresses per interface"}
		s.Entries = make([]nft.Entry, 0, count(list, func(from program.Attachment) bool {
			return inet.FamilyOf(from.Addr) == f
		}))
		for _, from := range list {
			if inet.FamilyOf(from.Addr) == f {
				s.Entries = append(s.Entries, nft.Entry{Key: nft.Key{Element: inet.Element{Addr: from.Addr},
					Iface: from.Link}})
			}
		}
		s.Entries = oneEach(s.Entries)
		sets = append(sets, s)
	}
	return sets
}

// count returns how many elements are of a kind.
func count[E any](list []E, is func(E) bool) (n int) {
	for _, e := range list {
		if is(e) {
			n++
		}
	}
	return n
}

// oneEach sorts the entries and leaves one of each key, in place: the kernel refuses
// a whole transaction because of a second one. Of two verdicts the closed one stays.
func oneEach(list []nft.Entry) []nft.Entry {
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, nft.Entry.Compare)
	one := list[:0]
	for _, e := range list {
		if n := len(one); n > 0 && one[n-1].Key == e.Key {
			one[n-1] = closer(one[n-1], e)
			continue
		}
		one = append(one, e)
	}
	return one
}

// closer returns the stricter of two entries with one key. The self-test's always is;
// of two chains neither is known to be, so the result drops.
func closer(a, b nft.Entry) nft.Entry {
	selfTest := nft.JumpTo(chainSelfTest)
	switch {
	case a.Verdict == b.Verdict, a.Verdict == selfTest, b.Verdict.Kind == nft.Accept:
		return a
	case b.Verdict == selfTest, a.Verdict.Kind == nft.Accept:
		return b
	}
	a.Verdict = nft.Verdict{Kind: nft.Drop}
	return a
}

// podComment names a pod in the maps, for operators and for the next process.
func podComment(pod program.Pod) string {
	if pod.ID == "" {
		return pod.Name
	}
	return pod.Name + " " + pod.ID
}

func judge(e nft.Entry, chain string) nft.Entry {
	e.Verdict = nft.Verdict{Kind: nft.Accept}
	if chain != "" {
		e.Verdict = nft.JumpTo(chain)
	}
	return e
}

func addrKey(a netip.Addr) nft.Key { return nft.Key{Element: inet.Element{Addr: a}} }

func perFamily(name string, f inet.Family) string {
	if f == inet.IPv6 {
		return name + "6"
	}
	return name + "4"
}

func interfaces(names []string) []nft.Entry {
	var list []nft.Entry
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		list = append(list, nft.Entry{Key: nft.Key{Iface: n}})
	}
	return list
}

// CarriedLinks returns the bridges that a table lists as carrying or having carried pods.
func CarriedLinks(t *nft.Table) []string {
	var names []string
	if s := t.Set(setPodBridges); s != nil {
		for _, e := range s.Entries {
			names = append(names, e.Key.Iface)
		}
	}
	return names
}

// Restore returns the settings that --cleanup-config has to restore; nil is none.
func Restore(t *nft.Table) (list []program.Saved) {
	if t == nil {
		return nil
	}
	if s := t.Set(setSavedSettings); s != nil {
		for _, e := range s.Entries {
			list = append(list, program.Saved{Name: e.Key.Iface, Text: e.Comment})
		}
	}
	return list
}

func saved(list []program.Saved) (entries []nft.Entry) {
	for _, s := range list {
		entries = append(entries, nft.Entry{Key: nft.Key{Iface: s.Name}, Comment: s.Text})
	}
	return entries
}
