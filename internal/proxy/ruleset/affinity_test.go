// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// The maps that are looked through after a change are those of sticky fronts that lost a backend or choose
// otherwise, and no others.
func TestWhichMapsAreLookedThrough(t *testing.T) {
	empty := &program.Program{Family: inet.IPv4}
	p := service(service(empty, 1, 2, 60), 2, 2, 0)
	sticky := []program.Front{frontOf(1)}
	rerouted := *p
	r, _ := p.Route(frontOf(1))
	rerouted.Routes = rerouted.Routes.Without(r)
	r.Outside.Count = 1
	rerouted.Routes = rerouted.Routes.With(r)
	for _, tt := range []struct {
		name     string
		old, now *program.Program
		want     []program.Front
	}{
		{"nothing changes", p, p, nil},
		{"another Service comes", p, service(p, 3, 2, 0), nil},
		{"a sticky Service comes", empty, p, nil},
		{"a sticky Service goes", p, empty, nil},
		{"its backend is replaced", p, replaced(p, 1), sticky},
		{"the backend of another one is replaced", p, replaced(p, 2), nil},
		{"clients outside choose among fewer", p, &rerouted, sticky},
	} {
		if got := ruleset.StickyChanges(tt.old, tt.now); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A client is forgotten if it cannot choose its backend any more: inside and outside choose among others.
func TestWhoIsForgotten(t *testing.T) {
	f := frontOf(1)
	inside, node, outside := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("8.8.8.8")
	p := *service(&program.Program{Family: inet.IPv4}, 1, 2, 60)
	p.NodePods = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	r, _ := p.Route(f)
	p.Routes = p.Routes.Without(r)
	r.Outside = program.Pick{Count: 1}
	p.Routes = p.Routes.With(r)
	var members []nft.Entry
	for _, client := range []netip.Addr{inside, node, outside} {
		for i := range 3 { // the third backend is none of the front's
			b := backendOf(1, i)
			members = append(members, nft.Entry{Key: nft.Key{Element: inet.Element{Addr: client}},
				To: netip.AddrPortFrom(b.Addr, b.Port)})
		}
	}
	own := func(a netip.Addr) bool { return a == node }
	want := []nft.Entry{members[2], members[5], members[7], members[8]}
	if got := ruleset.Stale(&p, f, members, own); !slices.Equal(got, want) {
		t.Errorf("forgotten are %v, want %v", got, want)
	}
	if got := ruleset.Stale(&p, frontOf(9), members, own); len(got) != len(members) {
		t.Errorf("of a front that is not there %d of %d are forgotten", len(got), len(members))
	}
}

// Clients of a backend that went are found among thousands, while others come and go.
func TestClientsAreForgottenWhileOthersComeAndGo(t *testing.T) {
	const clients = 4_000
	f := frontOf(1)
	p := service(&program.Program{Family: inet.IPv4}, 1, 2, 60)
	ns := nftrun.Namespace(t)
	c, other := connIn(t, ns, inet.IPv4), connIn(t, ns, inet.IPv4)
	if err := c.Commit(nft.Diff(nil, ruleset.Render(p, ruleset.Settings{}))); err != nil {
		t.Fatal(err)
	}
	set := ruleset.AffinitySet(f, inet.IPv4, ruleset.Settings{})
	client := func(n int) nft.Entry {
		b := backendOf(1, n%2)
		return nft.Entry{Key: nft.Key{Element: inet.Element{Addr: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})}},
			To: netip.AddrPortFrom(b.Addr, b.Port)}
	}
	var list []nft.Entry
	for n := range clients {
		list = append(list, client(n))
	}
	if err := c.Commit([]nft.Op{{Kind: nft.AddElements, Set: set, Entries: list}}); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := clients + 1; ; n += 2 { // of the backend that stays
			op := nft.Op{Kind: nft.AddElements, Set: set, Entries: []nft.Entry{client(clients + 1 + n%1000&^1)}}
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := other.Commit([]nft.Op{op}); err != nil {
				ended <- err
				return
			}
			op.Kind = nft.DeleteElements
			if err := other.Commit([]nft.Op{op}); err != nil {
				ended <- err
				return
			}
		}
	}()
	gone, _ := p.Slot(f, 0)
	less := without(p, f, gone.Backend)
	n, err := ruleset.Forget(c, less, []program.Front{f}, ruleset.Settings{}, func(netip.Addr) bool { return false })
	close(stop)
	if churn := <-ended; err != nil || churn != nil || n != clients/2 {
		t.Fatalf("%d clients are forgotten, want %d; %v, %v", n, clients/2, err, churn)
	}
	members, found, err := c.Members(set)
	if err != nil || !found || len(members) != clients/2 {
		t.Errorf("%d clients are left, found %t, %v; want %d", len(members), found, err, clients/2)
	}
	if got, err := c.Read(); err != nil || len(nft.Diff(got, ruleset.Render(p, ruleset.Settings{}))) > 0 {
		t.Errorf("the table with its members is read with a difference, or not: %v", err)
	}
}
