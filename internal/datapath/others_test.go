// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// An accept in a nat chain before ours could end the evaluation: the node is not ready, and filter chains
// enforce as long as that chain exists.
func TestANatChainBeforeOursMeansFilterChains(t *testing.T) {
	for name, family := range map[string]string{"IPv4": "ip", "IPv6": "ip6", "Inet": "inet"} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				healthy(t, d, isolated("10.244.2.5"))
				nftRun(t, "add table "+family+" theirs",
					"add chain "+family+" theirs early { type nat hook postrouting priority -195; }")
				verify(t, d)
				r := apply(t, d, isolated("10.244.2.5"))
				if !r.Filter || len(r.Problems) != 1 || !r.Problems[0].Blocking ||
					!strings.Contains(r.Problems[0].Text, "theirs early priority -195") {
					t.Errorf("report = %s, want filter chains and a blocking problem that names the chain", brief(r))
				}
				if text := listing(t); !strings.Contains(text, "type filter hook postrouting") ||
					strings.Contains(text, "type nat") {
					t.Errorf("not only filter chains:\n%s", text)
				}
				nftRun(t, "delete table "+family+" theirs")
				verify(t, d)
				if r := healthy(t, d, isolated("10.244.2.5")); r.Filter {
					t.Errorf("report = %s, want nat chains again", brief(r))
				}
				if text := listing(t); strings.Contains(text, "type filter hook postrouting") {
					t.Errorf("filter chains are left:\n%s", text)
				}
			})
		})
	}
}

// On a node with a bridge, chains of ours judge multicast at prerouting: a nat chain before them counts
// there, too, from the first bridge on.
func TestANatChainBeforeOursAtPreroutingCountsWithABridge(t *testing.T) {
	for name, c := range map[string]struct {
		family, priority string
		filter           bool
	}{
		"IPv4": {"ip", "-190", true}, "IPv6": {"ip6", "-195", true}, "Inet": {"inet", "-191", true},
		"Later": {"inet", "-189", false},
	} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				watch(t, d)
				nftRun(t, "add table "+c.family+" theirs", "add chain "+c.family+" theirs early { type nat hook prerouting "+
					"priority "+c.priority+"; }")
				if r := healthy(t, d, isolated()); r.Filter {
					t.Errorf("report = %s, want nat chains without a bridge", brief(r))
				}
				run(t, "ip", "link", "add", "br0", "type", "bridge")
				want := "prerouting"
				if c.filter {
					want = "prerouting-filter"
				}
				var r Report
				for end := time.Now().Add(patience); time.Now().Before(end); {
					if r = apply(t, d, isolated()); strings.Contains(listing(t), "chain "+want+" {") {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				if r.Filter != c.filter || (len(r.Problems) > 0) != c.filter ||
					!strings.Contains(listing(t), "chain "+want+" {") {
					t.Errorf("report = %s; want filter chains: %t\n%s", brief(r), c.filter, listing(t))
				}
			})
		})
	}
}

// Usual nat chains come after ours and are no problem.
func TestLaterNatChainsAreNoProblem(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		nftRun(t, "add table ip theirs", "add chain ip theirs masq { type nat hook postrouting priority 100; }",
			"add rule ip theirs masq masquerade", "add chain ip theirs pre { type nat hook prerouting priority -195; }")
		if r := healthy(t, open(t, Options{}), isolated("10.244.2.5")); r.Filter {
			t.Errorf("report = %s, want nat chains", brief(r))
		}
	})
}

// The guard is on unless other rules drop invalid packets in both families.
func TestGuardFollowsOtherTables(t *testing.T) {
	inet := []string{"add table inet fw", "add chain inet fw forward { type filter hook forward priority 0; }"}
	tests := []struct {
		name     string
		commands [][]string // programs with arguments; nft gets its text by -f
		want     bool
	}{
		{"NobodyElse", nil, true},
		{"Inet", [][]string{{"nft", strings.Join(append(inet, "add rule inet fw forward ct state invalid drop"), "; ")}},
			false},
		{"InetWithOtherStates", [][]string{{"nft",
			strings.Join(append(inet, "add rule inet fw forward ct state { invalid, untracked } drop"), "; ")}}, true},
		{"InetInvalidOrUntracked", [][]string{{"nft",
			strings.Join(append(inet, "add rule inet fw forward ct state invalid,untracked counter drop"), "; ")}}, false},
		{"InetInAChainBehind", [][]string{{"nft", strings.Join(append(inet, "add chain inet fw more",
			"add rule inet fw more ct state invalid drop", "add rule inet fw forward jump more"), "; ")}}, false},
		{"InetBehindAnAccept", [][]string{{"nft", strings.Join(append(inet, "add rule inet fw forward accept",
			"add rule inet fw forward ct state invalid drop"), "; ")}}, true},
		{"InetForOneInterface", [][]string{{"nft",
			strings.Join(append(inet, `add rule inet fw forward iifname "eth0" ct state invalid drop`), "; ")}}, true},
		{"InetAtInput", [][]string{{"nft", "add table inet fw; add chain inet fw input { type filter hook input priority 0; }; add rule inet fw input ct state invalid drop"}}, true},
		{"IptablesBoth", [][]string{{"iptables-nft", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j",
			"DROP"}, {"ip6tables-nft", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"}}, false},
		{"IptablesIPv4Only", [][]string{{"iptables-nft", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j",
			"DROP"}}, true},
		{"IptablesNotInvalid", [][]string{{"iptables-nft", "-A", "FORWARD", "-m", "conntrack", "!", "--ctstate", "INVALID", "-j", "DROP"}, {"ip6tables-nft", "-A", "FORWARD", "-m", "conntrack", "!", "--ctstate", "INVALID", "-j", "DROP"}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				if r := healthy(t, d, isolated()); !r.Guard {
					t.Errorf("off at the start: %s", r.GuardWhy)
				}
				for _, c := range tt.commands {
					if c[0] == "nft" {
						nftRun(t, strings.Split(c[1], "; add")[0]+strings.ReplaceAll(strings.TrimPrefix(c[1],
							strings.Split(c[1], "; add")[0]), "; add", "\nadd"))
						continue
					}
					run(t, c[0], c[1:]...)
				}
				verify(t, d)
				r := healthy(t, d, isolated())
				if r.Guard != tt.want || r.Drift != 0 {
					t.Errorf("guard = %t (%s), want %t; drift = %d, want none: our table did not change", r.Guard, r.GuardWhy,
						tt.want, r.Drift)
				}
				if got := strings.Contains(listing(t), "hook forward"); got != tt.want {
					t.Errorf("there is a chain at forward: %t, want %t", got, tt.want)
				}
			})
		})
	}
}

// After lost notifications the state of our own table says nothing about other tables: reading ours must
// not replace the survey.
func TestALookAtOurTableIsOneAtTheOthersToo(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		nftRun(t, "add table inet fw", "add chain inet fw forward { type filter hook forward priority 0; }",
			"add rule inet fw forward ct state invalid drop")
		d := open(t, Options{})
		if r := healthy(t, d, isolated()); r.Guard {
			t.Fatal("the guard is on in addition to another program's")
		}
		nftRun(t, "delete table inet fw")
		d.note(nft.Notice{Table: true}) // the only notification
		if r := healthy(t, d, isolated()); !r.Guard {
			t.Error("invalid packets are not dropped")
		}
	})
}

func TestGuardCanBeForced(t *testing.T) {
	for name, o := range map[string]Options{"On": {Options: decide.Options{Guard: decide.GuardOn}},
		"Off":    {Options: decide.Options{Guard: decide.GuardOff}},
		"Filter": {Options: decide.Options{FilterHook: true, Guard: decide.GuardOn}}} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				nftRun(t, "add table inet fw", "add chain inet fw forward { type filter hook forward priority 0; }",
					"add rule inet fw forward ct state invalid drop")
				if r := healthy(t, open(t, o), isolated()); r.Guard != (name == "On") {
					t.Errorf("guard = %t (%s)", r.Guard, r.GuardWhy)
				}
			})
		})
	}
}

// Cleanup removes the table and restores the bridges; it touches no other program's objects. A process that
// did not make the changes can do it as well.
func TestCleanupRemovesOnlyWhatIsOurs(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		nftRun(t, "add table inet other", "add chain inet other c { type nat hook postrouting priority 100; }",
			"add table arp podwall")
		run(t, "ip", "link", "add", "br0", "type", "bridge")
		run(t, "ip", "addr", "add", "10.244.1.1/24", "dev", "br0")
		run(t, "ip", "link", "set", "br0", "up")
		index := links.IndexOf("br0")
		before := bridged(t, index)
		vlan, err := links.ReadVLAN(sysctl.Default)
		if err != nil && os.Getenv("CI") != "true" {
			t.Skip("br_netfilter is not loaded:", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		others := foreign(t)
		first := open(t, Options{})
		healthy(t, first, isolated("10.244.2.5"))
		if now := bridged(t, index); !now.All() {
			t.Errorf("bridge settings = %s, want both on", now)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second := open(t, Options{})
		if err := second.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if now := bridged(t, index); now != before {
			t.Errorf("bridge settings = %s, want %s as before", now, before)
		}
		if now, _ := links.ReadVLAN(sysctl.Default); now != vlan {
			t.Errorf("the setting for VLAN frames = %t, want %t as before", now, vlan)
		}
		if tables := foreign(t); tables != others {
			t.Errorf("ruleset after cleaning up:\n%s\nwant:\n%s", tables, others)
		}
		if err := second.Cleanup(); err != nil {
			t.Errorf("cleaning up twice: %v", err)
		}
	})
}

func foreign(t *testing.T) string {
	t.Helper()
	return run(t, "nft", "--stateless", "list", "ruleset")
}

func bridged(t *testing.T, index int) links.Bridged {
	t.Helper()
	b, err := links.ReadBridge(index)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The first pods of a bridge could reach each other before they are known, unless the bridge passes its
// packets to the IP hooks from the start. Other programs' bridges are left alone.
func TestABridgeOfThePodNetworkShowsItsPacketsBeforeAPodOnItIsKnown(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
		for _, name := range []string{"cni0", "docker0"} {
			run(t, "ip", "link", "add", name, "type", "bridge")
		}
		d := open(t, Options{})
		healthy(t, d, &program.Program{})
		if got := bridged(t, links.IndexOf("cni0")); !got.All() {
			t.Errorf("cni0: %s, want both 1", got)
		}
		if got := bridged(t, links.IndexOf("docker0")); got != (links.Bridged{}) {
			t.Errorf("docker0: %s, want both 0", got)
		}
		if err := d.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if got := bridged(t, links.IndexOf("cni0")); got != (links.Bridged{}) {
			t.Errorf("cni0 after cleaning up: %s, want both 0 as before", got)
		}
	})
}

// A bridge may be renamed, and another one get its name. A cleanup restores both, also by another process.
func TestARenamedBridgeIsPutBackToo(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
		run(t, "ip", "link", "add", "cni0", "type", "bridge")
		d := open(t, Options{})
		healthy(t, d, &program.Program{})
		run(t, "ip", "link", "set", "cni0", "name", "old0")
		run(t, "ip", "link", "add", "cni0", "type", "bridge", "nf_call_iptables", "1")
		if err := open(t, Options{}).Cleanup(); err != nil {
			t.Fatal(err)
		}
		if got := bridged(t, links.IndexOf("old0")); got != (links.Bridged{}) {
			t.Errorf("the renamed bridge: %s, want both 0 as before", got)
		}
		if got := bridged(t, links.IndexOf("cni0")); !got.IPv4 {
			t.Errorf("the new bridge: %s, and it had not been changed", got)
		}
	})
}

// The new bridge has the name of one that is gone: its own settings are kept.
func TestABridgeThatIsMadeAnewIsPutBackAsItWas(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
		run(t, "ip", "link", "add", "cni0", "type", "bridge")
		d := open(t, Options{})
		watch(t, d)
		awaitWatch(t, d)
		healthy(t, d, &program.Program{})
		run(t, "ip", "link", "del", "cni0")
		run(t, "ip", "link", "add", "cni0", "type", "bridge", "nf_call_iptables", "1")
		for end := time.Now().Add(patience); !bridged(t, links.IndexOf("cni0")).All() && time.Now().Before(end); {
			apply(t, d, &program.Program{})
		}
		if err := d.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if got := bridged(t, links.IndexOf("cni0")); got != (links.Bridged{IPv4: true}) {
			t.Errorf("the bridge that was made anew: %s, want nf_call_iptables only", got)
		}
	})
}

// Interfaces of isolated pods are closed for unassigned addresses.
func TestInterfacesOfIsolatedPodsAreListed(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "add", "veth-web", "type", "veth", "peer", "name", "far")
		run(t, "ip", "link", "set", "veth-web", "up")
		run(t, "ip", "route", "add", "10.244.1.5/32", "dev", "veth-web")
		d := open(t, Options{})
		p := isolated("10.244.2.5")
		p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr("10.244.1.6"), Name: "shop/unwired",
			Ingress: "ingress4-web"})
		r := healthy(t, d, p)
		in, out := r.Table.Set("ingress-links"), r.Table.Set("egress-links")
		if in.Len() != 1 || in.Entries[0].Key.Iface != "veth-web" || out.Len() != 0 {
			t.Errorf("links of isolated pods: ingress %v, egress %v, want veth-web and none", in.Entries, out.Entries)
		}
	})
}
