// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"math/bits"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

// pair is an element that stands for a member of a map.
type pair struct {
	key Key
	to  netip.AddrPort
}

func (p pair) Hash() uint64 {
	hi, lo := bits.Mul64(p.key.Hash()^uint64(p.key.Slot+1)*0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}

func (p pair) entry() (Entry, bool) { return Entry{Key: p.key, To: p.to}, p.to.IsValid() }

func pairs(list ...pair) Content { return ContentOf(immutable.Of(list...), pair.entry) }

// address returns an address of a family.
func address(f inet.Family, n byte) netip.Addr {
	if f == inet.IPv6 {
		return netip.AddrFrom16([16]byte{0xfd, 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, n})
}

func slot(f inet.Family, addr byte, n uint16) Key {
	return Key{Element: inet.Element{Addr: address(f, addr), Protocol: inet.TCP, Port: 80}, Slot: n}
}

// natTable has every statement of nat chains and every kind of map that they use.
func natTable(f inet.Family) *Table {
	front, slots, value, addr := Front4, Slot4, Addr4Port, Addr4
	if f == inet.IPv6 {
		front, slots, value, addr = Front6, Slot6, Addr6Port, Addr6
	}
	to := netip.AddrPortFrom(address(f, 9), 8080)
	port := Key{Element: inet.Element{Protocol: inet.UDP, Port: 30053}}
	number := port
	number.Slot = 300
	rule := func(s ...Statement) Rule { return Rule{Family: f, Statements: s} }
	return &Table{
		TableID:  TableID{FamilyFor(f), "podwall-test"},
		Counters: []string{"rejected"},
		Sets: []*Set{
			{Name: "backends", Key: slots, Data: value, Comment: "of fronts",
				Content: pairs(pair{slot(f, 1, 0), to}, pair{slot(f, 1, 65535), to}, pair{slot(f, 2, 1), to})},
			{Name: "fronts", Key: front, Map: true, Entries: []Entry{{Key: slot(f, 1, 0), Verdict: GoTo("pick-2")}}},
			{Name: "numbered", Key: slots, Map: true, Entries: []Entry{{Key: slot(f, 1, 3), Verdict: GoTo("stick")}}},
			{Name: "port-backends", Key: PortSlot, Data: value, Content: pairs(pair{number, to})},
			{Name: "ports", Key: ProtocolPort, Map: true,
				Entries: []Entry{{Key: port, Verdict: Verdict{Kind: Drop}}}},
			{Name: "visits", Key: addr, Data: value, Dynamic: true, Size: 100, Kept: true},
		},
		Chains: []*Chain{
			{Name: "output", Base: &Base{Type: "nat", Hook: "output", Priority: -100},
				Rules: []Rule{rule(Lookup{Field: ProtocolAndPort, Set: "ports", Map: true}),
					rule(Lookup{Field: Front, Family: f, Set: "fronts", Map: true})}},
			{Name: "postrouting", Base: &Base{Type: "nat", Hook: "postrouting", Priority: 100},
				Rules: []Rule{rule(MatchTranslated{Negate: true}, Verdict{Kind: Accept}),
					rule(MatchTranslated{}, MatchMark{0x4000}, ClearMark{0x4000}, Masquerade{})}},
			{Name: "masked", Rules: []Rule{rule(SetMark{0x4000}), rule(GoTo("refuse"))}},
			{Name: "pick-2", Rules: []Rule{
				rule(TranslateByMap{Field: Front, Family: f, Choice: Choice{0, 2}, Map: "backends"}),
				rule(TranslateByMap{Field: Front, Family: f, Choice: Choice{7, 1}, Map: "backends"}),
				rule(TranslateByMap{Field: ProtocolAndPort, Family: f, Choice: Choice{65534, 1}, Map: "port-backends"}),
				rule(Lookup{Field: Front, Family: f, Choice: Choice{3, 1}, Set: "numbered", Map: true}),
			}},
			{Name: "refuse", Rules: []Rule{
				rule(MatchProtocol{Protocol: inet.TCP}, Count{"rejected"}, Reject{Family: f, Reset: true}),
				rule(Reject{Family: f}),
			}},
			{Name: "stick", Rules: []Rule{
				rule(RememberSource{"visits", time.Hour, to}),
				rule(TranslateByMap{Field: Source, Family: f, Protocol: inet.SCTP, Map: "visits"}),
				rule(Translate{inet.UDP, to}),
			}},
		},
	}
}

func connFor(t *testing.T, ns *netns.NS, id TableID) *Conn {
	t.Helper()
	c, err := Open(ns.FD(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the namespace goes anyway
	return c
}

// remember returns the rule that remembers a source.
func remember(t *Table) Rule { return t.Chain("stick").Rules[0] }

// What netlink writes is read back without a difference, nft lists it, and loads its listing and our text
// into the same table.
func TestNATGoesThroughTheKernelAndThroughText(t *testing.T) {
	for _, f := range inet.Families {
		want := natTable(f)
		ns := nftrun.Namespace(t)
		c := connFor(t, ns, want.TableID)
		if err := c.Commit(Diff(nil, want)); err != nil {
			t.Fatal(err)
		}
		same := func(how string, c *Conn) {
			t.Helper()
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range Diff(got, want) {
				t.Errorf("IPv%d, %s: difference: %s", f, how, op)
			}
			if diff := cmp.Diff((&Table{Sets: want.Sets}).String(), (&Table{Sets: got.Sets}).String()); diff != "" {
				t.Errorf("IPv%d, %s: sets (-written +read):\n%s", f, how, diff)
			}
		}
		same("netlink", c)
		listing := nftrun.Run(t, ns, "", "list", "table", want.Family.String(), want.Name)
		if !strings.Contains(listing, strings.Replace(remember(want).String(), "3600s", "1h", 1)) {
			t.Errorf("IPv%d: nft does not list %q:\n%s", f, remember(want), listing)
		}
		if f == inet.IPv6 { // nft cannot load it
			stick := want.Chain("stick")
			stick.Rules = stick.Rules[1:]
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Commit(Diff(got, want)); err != nil {
				t.Fatal(err)
			}
			listing = nftrun.Run(t, ns, "", "list", "table", want.Family.String(), want.Name)
		}
		for how, text := range map[string]string{"text": want.String(), "listing": listing} {
			other := nftrun.Namespace(t)
			nftrun.Run(t, other, text, "-f", "-")
			same(how, connFor(t, other, want.TableID))
			again := nftrun.Run(t, other, "", "list", "table", want.Family.String(), want.Name)
			if diff := cmp.Diff(nftrun.Lines(listing), nftrun.Lines(again)); diff != "" {
				t.Errorf("IPv%d: what nft lists (-by netlink +by %s):\n%s", f, how, diff)
			}
		}
	}
}

// The description of a key with a number is nft's own.
func TestDescriptionsOfKeysAreThoseOfNft(t *testing.T) {
	for _, f := range inet.Families {
		table := natTable(f)
		for _, s := range table.Sets {
			s.Comment = "" // nft puts it elsewhere
		}
		stick := table.Chain("stick")
		stick.Rules = stick.Rules[1:] // nft cannot load it for IPv6
		ns := nftrun.Namespace(t)
		nftrun.Run(t, ns, table.String(), "-f", "-")
		c := connFor(t, ns, table.TableID)
		described := map[string][]byte{}
		err := c.lister.dump(unix.NFT_MSG_GETSET, byte(c.table.Family), attribute(nil, unix.NFTA_SET_TABLE, table.Name),
			func(b []byte) {
				name := ""
				for kind, data, rest, ok := nextAttribute(b); ok; kind, data, rest, ok = nextAttribute(rest) {
					switch kind {
					case unix.NFTA_SET_NAME:
						name = string(data[:len(data)-1])
					case unix.NFTA_SET_USERDATA:
						described[name] = bytes.Clone(data)
					}
				}
			})
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, s := range table.Sets {
			if s.typeof() == "" {
				continue
			}
			found++
			if got, want := s.userData(), described[s.Name]; !bytes.Equal(got, want) {
				t.Errorf("IPv%d, set %s:\n got %x\nwant %x", f, s.Name, got, want)
			}
		}
		if found != 3 {
			t.Errorf("%d sets have a description, want 3", found)
		}
	}
}

// A comment that does not fit beside the description is left out: the kernel refuses longer user data.
func TestALongCommentDoesNotMakeASetTooLong(t *testing.T) {
	for n, want := range map[int]bool{10: true, 100: false, 1000: false} {
		table := natTable(inet.IPv6)
		s := table.Set("backends")
		s.Comment = strings.Repeat("x", n)
		c := connFor(t, nftrun.Namespace(t), table.TableID)
		if err := c.Commit(Diff(nil, table)); err != nil {
			t.Fatalf("a comment of %d characters: %v", n, err)
		}
		got, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if has := got.Set("backends").Comment != ""; has != want {
			t.Errorf("of %d characters: a comment is there: %t, want %t", n, has, want)
		}
	}
}

// A failed transaction of the socket for descriptions is an error, and the connection works afterwards.
func TestAFailedDescriptionIsAnError(t *testing.T) {
	want := natTable(inet.IPv4)
	c := connFor(t, nftrun.Namespace(t), want.TableID)
	broken := *want
	broken.Chains = append([]*Chain{{Name: "broken", Rules: []Rule{{Family: inet.IPv4,
		Statements: []Statement{GoTo("nowhere")}}}}}, want.Chains...)
	if err := c.Commit(Diff(nil, &broken)); !IsMissing(err) {
		t.Fatalf("a jump to a missing chain: %v, want that it is missing", err)
	}
	got, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Commit(Diff(got, want)); err != nil {
		t.Fatal(err)
	}
	if got, err = c.Read(); err != nil || len(Diff(got, want)) > 0 {
		t.Errorf("afterwards: %v, differences %v", err, Diff(got, want))
	}
}

// A value that changes is replaced in one operation before the rules, new members come before them, and
// members that go leave after them.
func TestMembersOfDataMapsChangeInOrder(t *testing.T) {
	f := inet.IPv4
	a, b := netip.AddrPortFrom(address(f, 1), 1), netip.AddrPortFrom(address(f, 2), 2)
	set := func(list ...pair) *Table {
		return &Table{Sets: []*Set{{Name: "m", Key: Slot4, Data: Addr4Port, Content: pairs(list...)}}}
	}
	old := set(pair{slot(f, 1, 0), a}, pair{slot(f, 1, 1), a}, pair{slot(f, 1, 2), a})
	now := set(pair{slot(f, 1, 0), a}, pair{slot(f, 1, 1), b}, pair{slot(f, 1, 3), b})
	var got []string
	for _, op := range Diff(old, now) {
		got = append(got, op.String())
	}
	want := []string{"add 1 elements to m", "replace 1 elements of m", "delete 1 elements of m"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	// The same if the old members were read from the kernel.
	old.Sets[0].Entries, old.Sets[0].Content = old.Sets[0].members(), nil
	got = nil
	for _, op := range Diff(old, now) {
		got = append(got, op.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations after reading (-want +got):\n%s", diff)
	}
}
