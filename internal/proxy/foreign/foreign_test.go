// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/leftover"
)

func key(family, name string) leftover.Key { return leftover.Key{Family: family, Name: name} }

func table(family, name string, chains ...leftover.Chain) leftover.Table {
	return leftover.Table{Key: key(family, name), Chains: chains}
}

// chain has rules that lead to the targets; one in capitals without KUBE- is the kernel's.
func chain(name string, targets ...string) leftover.Chain {
	c := leftover.Chain{Name: name, Base: slices.Contains([]string{"PREROUTING", "POSTROUTING", "INPUT", "OUTPUT", "FORWARD"}, name)}
	for i, t := range targets {
		c.Jumps = append(c.Jumps, leftover.Rule{Handle: uint64(i + 1), Target: t})
	}
	return c
}

const service, endpoint = "KUBE-SVC-XIOATVM5TOINSO4V", "KUBE-SEP-4QX7WKXU2QZ3ZVHF"

// iptablesMode is what kube-proxy leaves in tables of iptables, beside the kubelet and other programs.
func iptablesMode() []leftover.Table {
	return []leftover.Table{
		table("ip", "nat", chain("PREROUTING", "KUBE-SERVICES", "CNI-HOSTPORT-DNAT"), chain("OUTPUT", "KUBE-SERVICES"),
			chain("POSTROUTING", "CNI-HOSTPORT-MASQ", "KUBE-POSTROUTING"), chain("KUBE-SERVICES"), chain("KUBE-NODEPORTS"),
			chain("KUBE-POSTROUTING"), chain("KUBE-MARK-MASQ"), chain("KUBE-PROXY-CANARY"), chain(service), chain(endpoint),
			chain("KUBE-KUBELET-CANARY"), chain("KUBE-SVC-mine")),
		table("ip", "filter", chain("FORWARD", "KUBE-ROUTER-FORWARD", "KUBE-FORWARD"), chain("INPUT", "KUBE-FIREWALL"),
			chain("KUBE-FORWARD"), chain("KUBE-FIREWALL"), chain("KUBE-ROUTER-FORWARD")),
		table("ip", "mangle", chain("KUBE-PROXY-CANARY"), chain("KUBE-SERVICES")),
	}
}

func names(list []leftover.ChainName) (names []string) {
	for _, c := range list {
		names = append(names, c.Table.Name+" "+c.Name)
	}
	return names
}

func TestTheRulesOfIptablesAreTakenAndNothingElse(t *testing.T) {
	p := Decide(Inventory{Tables: iptablesMode()}, true)
	if len(p.Steps) != 1 || len(p.Left)+len(p.Refusals) > 0 {
		t.Fatalf("the plan is not one step:\n%s", p.Text())
	}
	nat, filter := key("ip", "nat"), key("ip", "filter")
	jump := func(k leftover.Key, from string, handle uint64, to string) leftover.Jump {
		return leftover.Jump{Table: k, Chain: from, Rule: leftover.Rule{Handle: handle, Target: to}}
	}
	jumps := []leftover.Jump{jump(nat, "PREROUTING", 1, "KUBE-SERVICES"), jump(nat, "OUTPUT", 1, "KUBE-SERVICES"),
		jump(nat, "POSTROUTING", 2, "KUBE-POSTROUTING"), jump(filter, "FORWARD", 2, "KUBE-FORWARD")}
	if diff := cmp.Diff(jumps, p.Steps[0].Removal.Jumps); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	chains := []string{"nat KUBE-SERVICES", "nat KUBE-NODEPORTS", "nat KUBE-POSTROUTING", "nat KUBE-MARK-MASQ",
		"nat KUBE-PROXY-CANARY", "nat " + service, "nat " + endpoint, "filter KUBE-FORWARD", "mangle KUBE-PROXY-CANARY"}
	if diff := cmp.Diff(chains, names(p.Steps[0].Removal.Chains)); diff != "" {
		t.Errorf("chains (-want +got):\n%s", diff)
	}
}

// A hostPort marks packets in kube-proxy's chain: the mark goes on to be masqueraded.
func TestWhatAHostPortUsesStays(t *testing.T) {
	tables := iptablesMode()
	tables[0].Chains = append(tables[0].Chains, chain("CNI-DN-1", "KUBE-MARK-MASQ"))
	p := Decide(Inventory{Tables: tables}, true)
	got := names(p.Steps[0].Removal.Chains)
	if slices.Contains(got, "nat KUBE-MARK-MASQ") || slices.Contains(got, "nat KUBE-POSTROUTING") ||
		!slices.Contains(got, "nat "+service) || len(p.Steps[0].Removal.Jumps) != 3 || len(p.Left) != 1 {
		t.Errorf("the plan is:\n%s\n%v", p.Text(), got)
	}
	tables[0].Chains = append(tables[0].Chains, chain("theirs", service))
	p = Decide(Inventory{Tables: tables}, true)
	if got := names(p.Steps[0].Removal.Chains); !slices.Equal(got, []string{"filter KUBE-FORWARD", "mangle KUBE-PROXY-CANARY"}) ||
		len(p.Steps[0].Removal.Jumps) != 3 || len(p.Left) != 2 {
		t.Errorf("with a chain that leads to a Service:\n%s\n%v", p.Text(), got)
	}
}

func TestWhatIsFound(t *testing.T) {
	legacy := func(family, name string, chains ...string) []leftover.LegacyTable {
		return []leftover.LegacyTable{{Key: key(family, name), Chains: chains}}
	}
	tests := []struct {
		name string
		inv  Inventory
		want []string // words of each that is found
	}{
		{"nothing", Inventory{}, nil},
		{"nftables mode", Inventory{Tables: []leftover.Table{table("ip", "kube-proxy"), table("ip6", "kube-proxy")}},
			[]string{"kube-proxy in nftables mode has rules on this node: table ip kube-proxy, table ip6 kube-proxy"}},
		{"tables that only look so", Inventory{Tables: []leftover.Table{table("inet", "kube-proxy"), table("ip", "kube-proxy2"),
			table("ip6", "k8s_svc"), table("inet", "nat", chain("KUBE-SERVICES"))}}, nil},
		{"iptables mode", Inventory{Tables: iptablesMode()},
			[]string{"kube-proxy in iptables mode has rules on this node: chain ip nat KUBE-SERVICES, chain ip nat KUBE-NODEPORTS"}},
		{"chains that the kubelet makes", Inventory{Tables: []leftover.Table{table("ip", "nat", chain("KUBE-MARK-MASQ"),
			chain("POSTROUTING", "KUBE-POSTROUTING"), chain("KUBE-POSTROUTING")), table("ip", "filter", chain("KUBE-FIREWALL"))}}, nil},
		{"two modes, one after the other", Inventory{Tables: append(iptablesMode(), table("ip6", "kube-proxy"))},
			[]string{"iptables mode", "nftables mode"}},
		{"iptables-legacy", Inventory{Legacy: legacy("ip6", "nat", "KUBE-SERVICES", service)},
			[]string{"chain ip6 nat KUBE-SERVICES of iptables-legacy"}},
		{"the firewall of kube-router", Inventory{Legacy: legacy("ip", "filter", "KUBE-ROUTER-FORWARD"),
			Sets: []string{"KUBE-SRC-4QX7WKXU2QZ3ZVHF"}}, nil},
		{"IPVS mode", Inventory{Tables: []leftover.Table{table("ip", "nat", chain("KUBE-SERVICES"))},
			Links: []Link{{"eth0", "device", 2}, {"kube-ipvs0", "dummy", 5}}},
			[]string{"kube-proxy in IPVS mode has rules on this node: chain", "interface kube-ipvs0 with 5 addresses"}},
		{"an interface without addresses", Inventory{Links: []Link{{"kube-ipvs0", "dummy", 0}, {"kube-dummy-if", "dummy", 0}}}, nil},
		{"kube-router", Inventory{Tables: []leftover.Table{table("ip", "filter", chain("KUBE-ROUTER-SERVICES")),
			table("ip", "nat", chain("KUBE-ROUTER-HAIRPIN"))}, Links: []Link{{"kube-dummy-if", "dummy", 1}}},
			[]string{"kube-router's service proxy has rules on this node: chain ip filter KUBE-ROUTER-SERVICES, chain ip nat " +
				"KUBE-ROUTER-HAIRPIN", "interface kube-dummy-if"}},
		{"kpng", Inventory{Tables: []leftover.Table{table("ip", "k8s_svc"), table("ip6", "k8s_svc6")}}, []string{"kpng has rules"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Decide(tt.inv, false)
			if len(p.Found) != len(tt.want) || len(p.Refusals) != len(tt.want) {
				t.Fatalf("found %v, refusals %v, want %d of each", p.Found, p.Refusals, len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.Contains(p.Found[i].String(), want) || !strings.Contains(p.Refusals[i].Why, want) ||
					!strings.Contains(p.Refusals[i].Cure, "--takeover") {
					t.Errorf("found %q, refused %+v, want %q and a cure", p.Found[i], p.Refusals[i], want)
				}
			}
			if p := Decide(tt.inv, true); len(p.Refusals) > 0 {
				t.Errorf("with takeover: %v", p.Refusals)
			}
		})
	}
}

func TestBesideARunningProxyNothingHelps(t *testing.T) {
	inv := Inventory{Running: []Sign{{KubeProxy, "process 7 has its name"}, {KubeRouter, "x"}}}
	for _, takeover := range []bool{false, true} {
		p := Decide(inv, takeover)
		if len(p.Refusals) != 2 || !strings.Contains(p.Refusals[0].Why, "process 7") ||
			!strings.Contains(p.Refusals[0].Cure, "DaemonSet") || !strings.Contains(p.Refusals[1].Cure, "--run-service-proxy=false") {
			t.Errorf("takeover %t: %v", takeover, p.Refusals)
		}
	}
}

// The order is: tables, rules, sets that the rules used, interfaces.
func TestStepsAndWhatStays(t *testing.T) {
	inv := Inventory{
		Tables: append(iptablesMode(), table("ip", "kube-proxy"), table("ip6", "kube-proxy")),
		Sets: []string{"KUBE-6-LOAD-BALANCER-SOURCE-CID", "KUBE-CLUSTER-IP", "KUBE-SRC-4QX7WKXU2QZ3ZVHF", "KUBE-CLUSTER-IPS",
			"kube-router-svip"},
		Links: []Link{{"kube-ipvs0", "dummy", 2}, {"kube-dummy-if", "bridge", 1}, {"cilium_host", "veth", 1}},
	}
	p := Decide(inv, true)
	var steps []string
	for _, s := range p.Steps {
		steps = append(steps, s.String())
	}
	want := []string{"tables of nftables: table ip kube-proxy, table ip6 kube-proxy",
		"rules of iptables (nft): 4 rules that lead to chains, 9 chains",
		"ipsets: ipsets KUBE-6-LOAD-BALANCER-SOURCE-CID, KUBE-CLUSTER-IP, kube-router-svip",
		"interfaces with addresses of Services: interface kube-ipvs0"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if len(p.Left) != 1 || !strings.Contains(p.Left[0].Why, "bridge") || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "Cilium") {
		t.Errorf("left %v, notes %v", p.Left, p.Notes)
	}

	inv.IPVS = true
	p = Decide(inv, true)
	if len(p.Steps) != 3 || len(p.Left) != 2 || !strings.Contains(p.Left[0].Cure, "ipvsadm") {
		t.Errorf("with virtual services:\n%s", p.Text())
	}

	inv.Legacy = []leftover.LegacyTable{{Key: key("ip", "nat"), Chains: []string{"KUBE-SERVICES", "KUBE-MARK-MASQ", "theirs"}},
		{Key: key("ip", "filter"), Chains: []string{"theirs"}}}
	p = Decide(inv, true)
	text := p.Text()
	if len(p.Steps) != 2 || !strings.Contains(text, "1 chains in table ip nat of iptables-legacy") ||
		!strings.Contains(text, "iptables-legacy-restore") || !strings.Contains(text, "use them\n  what to do: remove those rules first") {
		t.Errorf("with chains in iptables-legacy:\n%s", text)
	}
}

// Rules that are written again have other handles, chains of other Services other names.
func TestMarksTellRulesThatAreWrittenAgain(t *testing.T) {
	inv := func(handle uint64) Inventory {
		c := leftover.Chain{Name: "KUBE-SERVICES", Jumps: []leftover.Rule{{Handle: handle, Target: service}}}
		return Inventory{Tables: []leftover.Table{table("ip", "nat", c, chain("theirs", "theirs2")), table("ip6", "kube-proxy", chain("x"))},
			Legacy: []leftover.LegacyTable{{Key: key("ip", "nat"), Chains: []string{service, "theirs"}}}}
	}
	if !slices.Equal(Marks(inv(1)), Marks(inv(1))) || slices.Equal(Marks(inv(1)), Marks(inv(2))) {
		t.Error("handles do not matter")
	}
	if diff := cmp.Diff([]string{"ip nat KUBE-SERVICES", "ip nat KUBE-SERVICES 1 " + service, "ip6 kube-proxy x", "legacy ip nat " + service},
		Marks(inv(1))); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
}

// While our proxy runs, rules that are back and what stayed are problems, a chain that a hostPort uses is not.
func TestProblemsOfANodeThatIsServed(t *testing.T) {
	words := func(inv Inventory) (list []string) {
		for _, p := range Decide(inv, true).Problems() {
			if p.Cure == "" {
				t.Errorf("without a cure: %+v", p)
			}
			list = append(list, p.Subject+": "+p.Text[:min(len(p.Text), 40)])
		}
		return list
	}
	hostPort := []leftover.Table{table("ip", "nat", chain("KUBE-POSTROUTING"), chain("KUBE-MARK-MASQ"), chain("CNI-DN-1", "KUBE-MARK-MASQ"))}
	tables := iptablesMode()
	tables[0].Chains = append(tables[0].Chains, chain("CNI-DN-1", "KUBE-MARK-MASQ"))
	tests := []struct {
		name string
		inv  Inventory
		want []string
	}{
		{"nothing", Inventory{}, nil},
		{"what a hostPort uses", Inventory{Tables: hostPort}, nil},
		{"rules that are back", Inventory{Tables: tables}, []string{"other service proxy: kube-proxy in iptables mode has rules on"}},
		{"one that runs", Inventory{Tables: tables, Running: []Sign{{KubeProxy, "x"}}}, []string{"other service proxy: kube-proxy runs: x"}},
		{"virtual services", Inventory{Links: []Link{{"kube-ipvs0", "dummy", 3}}, IPVS: true},
			[]string{"left of another service proxy: interface kube-ipvs0 with 3 addresses: I"}},
		{"iptables-legacy", Inventory{Legacy: []leftover.LegacyTable{{Key: key("ip", "nat"), Chains: []string{"KUBE-SERVICES"}}}},
			[]string{"left of another service proxy: 1 chains in table ip nat of iptables-leg"}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, words(tt.inv)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestTheTextOfNothing(t *testing.T) {
	if p := Decide(Inventory{}, false); !p.Nothing() || p.Text() != "no other service proxy is here\n" {
		t.Errorf("%+v: %q", p, p.Text())
	}
}
