// SPDX-License-Identifier: Apache-2.0

package kuberouter

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const podChain, policyChain = "KUBE-POD-FW-XIOATVM5TOINSO4V", "KUBE-NWPLCY-4QX7WKXU2QZ3ZVHF"

func filterOf(family string, chains ...Chain) Table {
	return Table{Key: Key{Family: family, Name: "filter"}, Chains: chains}
}

func chain(name string, targets ...string) Chain {
	c := Chain{Name: name}
	for i, t := range targets {
		c.Jumps = append(c.Jumps, Rule{Handle: uint64(i + 1), Target: t})
	}
	return c
}

// left is what a firewall of iptables-nft leaves beside kube-proxy.
func left() Inventory {
	return Inventory{
		Tables: []Table{
			filterOf("ip", chain("FORWARD", "KUBE-ROUTER-FORWARD", "KUBE-FORWARD"), chain("KUBE-FORWARD"),
				chain("KUBE-ROUTER-FORWARD"), chain(podChain), chain(policyChain), chain("KUBE-NWPLCY-TAIL")),
			{Key: Key{Family: "ip", Name: "nat"}, Chains: []Chain{chain("KUBE-SERVICES")}},
		},
		Sets: []string{"KUBE-SRC-4QX7WKXU2QZ3ZVHF", "KUBE-CLUSTER-IP", "inet6:KUBE-DST-4QX7WKXU2QZ3ZVHF",
			"kube-router-local-pods"},
		Links: []string{"lo", "eth0", "kube-ipvs0"}, IPVS: true,
	}
}

func TestThePlanTakesTheFirewallAndNothingElse(t *testing.T) {
	p := Decide(left(), Options{})
	filter := Key{Family: "ip", Name: "filter"}
	want := Plan{
		Jumps: []Jump{{Table: filter, Chain: "FORWARD", Rule: Rule{Handle: 1, Target: "KUBE-ROUTER-FORWARD"}}},
		Chains: []ChainName{{Table: filter, Name: "KUBE-ROUTER-FORWARD"}, {Table: filter, Name: podChain}, {Table: filter, Name: policyChain},
			{Table: filter, Name: "KUBE-NWPLCY-TAIL"}},
		Sets: []string{"KUBE-SRC-4QX7WKXU2QZ3ZVHF", "inet6:KUBE-DST-4QX7WKXU2QZ3ZVHF", "kube-router-local-pods"},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestWhatIsPlannedByName(t *testing.T) {
	tests := []struct {
		name string
		inv  Inventory
		want string // of the text
	}{
		{"nothing at all", Inventory{}, "nothing of kube-router's firewall is here\n"},
		{"kube-proxy alone", Inventory{Tables: []Table{filterOf("ip", chain("INPUT", "KUBE-FIREWALL"),
			chain("KUBE-FIREWALL"))}, Sets: []string{"KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP"}},
			"nothing of kube-router's firewall is here\n"},
		{"tables of its own", Inventory{Tables: []Table{{Key: Key{Family: "ip", Name: "kube-router-filter-ipv4"},
			Chains: []Chain{chain(podChain)}}, {Key: Key{Family: "ip6", Name: "kube-router-filter-ipv6"}}}},
			"table  ip kube-router-filter-ipv4\ntable  ip6 kube-router-filter-ipv6\n"},
		{"tables that only look so", Inventory{Tables: []Table{{Key: Key{Family: "inet", Name: "kube-router-filter-ipv4"}},
			{Key: Key{Family: "ip6", Name: "kube-router-filter-ipv4"}}, {Key: Key{Family: "ip", Name: "kube-router"}}}},
			"nothing of kube-router's firewall is here\n"},
		{"its names in a table of somebody else", Inventory{Tables: []Table{{Key: Key{Family: "ip", Name: "mangle"},
			Chains: []Chain{chain(podChain)}}, {Key: Key{Family: "inet", Name: "filter"}, Chains: []Chain{chain(podChain)}}}},
			"nothing of kube-router's firewall is here\n"},
		{"jumps of the release of 2018", Inventory{Tables: []Table{filterOf("ip6",
			chain("OUTPUT", podChain, podChain))}},
			"rule   ip6 filter OUTPUT handle 1, which leads to " + podChain +
				"\nrule   ip6 filter OUTPUT handle 2, which leads to " + podChain + "\n"},
		{"names of another form", Inventory{Tables: []Table{filterOf("ip", chain("KUBE-POD-FW-mine"),
			chain("FORWARD", "KUBE-POD-FW-mine"))}, Sets: []string{"KUBE-SRC-mine"}},
			"nothing of kube-router's firewall is here\n" +
				"left alone, the name is of no form that kube-router gives: chain ip filter KUBE-POD-FW-mine\n" +
				"left alone, the name is of no form that kube-router gives: ipset KUBE-SRC-mine\n"},
		{"iptables-legacy beside it", Inventory{
			Legacy: []LegacyTable{{Key: Key{Family: "ip6", Name: "filter"}, Chains: []string{"KUBE-FORWARD", podChain}}},
			Sets:   []string{"KUBE-SRC-4QX7WKXU2QZ3ZVHF"}},
			"ipset  KUBE-SRC-4QX7WKXU2QZ3ZVHF\nthe ipsets stay until the chains of iptables-legacy, which use them, are gone\n" +
				"not removed: 1 chains of kube-router in table ip6 filter of iptables-legacy. On the node, as root:\n" +
				Recipe(LegacyTable{Key: Key{Family: "ip6", Name: "filter"}})},
		{"kube-proxy alone in iptables-legacy", Inventory{
			Legacy: []LegacyTable{{Key: Key{Family: "ip", Name: "filter"}, Chains: []string{"KUBE-FORWARD"}}}},
			"nothing of kube-router's firewall is here\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Decide(tt.inv, Options{}).Text()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhenTheRemovalIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Inventory)
		want   []string // words of each refusal, in their order
	}{
		{"nothing speaks against it", func(*Inventory) {}, nil},
		{"a process", func(inv *Inventory) { inv.Running = []string{"process 12 has its name"} },
			[]string{"kube-router runs: process 12"}},
		{"podwall does not enforce", func(inv *Inventory) { inv.NotEnforcing = "its table is not in the kernel" },
			[]string{"podwall does not enforce"}},
		{"IPVS of somebody", func(inv *Inventory) { inv.Links = []string{"eth0"} },
			[]string{"service proxy is in use: IPVS"}},
		{"IPVS of kube-proxy and of kube-router", func(inv *Inventory) {
			inv.Links = append(inv.Links,
				"kube-dummy-if")
		}, []string{"interface kube-dummy-if"}},
		{"chain of the service proxy", func(inv *Inventory) {
			inv.Tables = append(inv.Tables,
				filterOf("ip6", chain("KUBE-ROUTER-SERVICES")))
		}, []string{"chain ip6 filter KUBE-ROUTER-SERVICES"}},
		{"its nat chain", func(inv *Inventory) {
			inv.Tables = append(inv.Tables, Table{Key: Key{Family: "ip", Name: "nat"}, Chains: []Chain{chain("KUBE-ROUTER-HAIRPIN")}})
		}, []string{"chain ip nat KUBE-ROUTER-HAIRPIN"}},
		{"its chain in iptables-legacy", func(inv *Inventory) {
			inv.Legacy = []LegacyTable{{Key: Key{Family: "ip", Name: "filter"}, Chains: []string{"KUBE-ROUTER-SERVICES"}}}
		}, []string{"KUBE-ROUTER-SERVICES of iptables-legacy"}},
		{"its set", func(inv *Inventory) { inv.Sets = append(inv.Sets, "inet6:kube-router-svip-prt") },
			[]string{"ipset inet6:kube-router-svip-prt"}},
		{"the router's set", func(inv *Inventory) { inv.Sets = append(inv.Sets, "kube-router-pod-subnets") },
			[]string{"router is in use: ipset kube-router-pod-subnets"}},
		{"kube-bridge alone", func(inv *Inventory) { inv.Links = append(inv.Links, "kube-bridge") },
			[]string{"now-beside-kube-bridge"}},
		{"several", func(inv *Inventory) { inv.Running, inv.NotEnforcing = []string{"one", "two"}, "none" },
			[]string{"runs: one", "runs: two", "podwall does not"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv := left()
			tt.change(&inv)
			got := Decide(inv, Options{}).Refusals
			ok := slices.EqualFunc(got, tt.want,
				func(r Refusal, words string) bool {
					return strings.Contains(r.Why+r.Cure, words) && r.Cure != ""
				})
			if !ok {
				t.Errorf("refusals = %q, want %q", got, tt.want)
			}
		})
	}
}

// Only kube-bridge by itself can be said to be no sign of the router.
func TestKubeBridgeCanBeKept(t *testing.T) {
	inv := left()
	inv.Links = append(inv.Links, "kube-bridge")
	if r := Decide(inv, Options{KeepBridge: true}).Refusals; len(r) > 0 {
		t.Errorf("refusals = %q, want none", r)
	}
	inv.Sets = append(inv.Sets, "kube-router-node-ips")
	if r := Decide(inv, Options{KeepBridge: true}).Refusals; len(r) != 1 {
		t.Errorf("refusals = %q, want one: the router's set is there", r)
	}
	if r := Decide(inv, Options{}).Refusals; len(r) != 1 || strings.Contains(r[0].Cure, "now-beside-kube-bridge") {
		t.Errorf("refusals = %q, want one without that way out", r)
	}
}

// Each sync gives new names: another list is a sign that kube-router runs, another
// order is none.
func TestNamesTellOneSyncFromAnother(t *testing.T) {
	a, b := left(), left()
	b.Legacy = []LegacyTable{{Key: Key{Family: "ip", Name: "filter"}, Chains: []string{"KUBE-FORWARD"}}}
	slices.Reverse(b.Tables[0].Chains)
	if diff := cmp.Diff(Names(a), Names(b)); diff != "" {
		t.Errorf("names (-one +other order):\n%s", diff)
	}
	b.Legacy[0].Chains = append(b.Legacy[0].Chains, podChain)
	if slices.Equal(Names(a), Names(b)) {
		t.Error("a chain in iptables-legacy is not among the names")
	}
	a.Tables[0].Chains[3].Name = "KUBE-POD-FW-AAAAAAAAAAAAAAAA"
	if slices.Equal(Names(a), Names(left())) {
		t.Error("a chain has another name, and the list is the same")
	}
}
