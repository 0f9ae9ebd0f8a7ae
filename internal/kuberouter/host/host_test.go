// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/kuberouter"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/oldfirewall"
)

func TestMain(m *testing.M) { entry.Try(m) }

// kubeProxy are rules and a set of somebody else, some with names that look alike.
const kubeProxy = `*filter
:INPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules, not KUBE-ROUTER-FORWARD" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m set --match-set KUBE-CLUSTER-IP dst -j ACCEPT
COMMIT
`

const otherTables = `
add table ip kube-router
add table inet kube-router-filter-ipv4
add chain ip kube-router KUBE-NWPLCY-TAIL
add table ip kube-router-filter-ipv4
add chain ip kube-router-filter-ipv4 KUBE-ROUTER-FORWARD { type filter hook forward priority 0; }
add chain ip kube-router-filter-ipv4 KUBE-NWPLCY-TAIL
add rule ip kube-router-filter-ipv4 KUBE-ROUTER-FORWARD jump KUBE-NWPLCY-TAIL
`

func run(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, input)
	}
	return string(out)
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func firewall(family int) oldfirewall.Firewall {
	addr := func(last string) netip.Addr {
		return netip.MustParseAddr(map[int]string{4: "10.244.1.", 6: "fd00:244:1::"}[family] + last)
	}
	return oldfirewall.New([]oldfirewall.Pod{
		{Name: "shop/victim", Addr: addr("10"), Ingress: []netip.Addr{addr("11")}},
		{Name: "shop/jailed", Addr: addr("12"), Egress: []netip.Addr{}},
		{Name: "evil/stranger", Addr: addr("20")},
	})
}

// state is what all programs have in this network namespace, the names of ipsets
// included. Counters, and sets that legacy rules use, stay out.
func state(t *testing.T) []string {
	t.Helper()
	text := run(t, "", "nft", "--stateless", "list", "ruleset") + run(t, "", "ipset", "list", "-n") +
		run(t, "", "iptables-legacy-save") + run(t, "", "ip6tables-legacy-save")
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, "#") })
}

func decide(t *testing.T) kuberouter.Plan {
	t.Helper()
	inv, err := Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inv.Running = nil // a machine may run one
	return kuberouter.Decide(inv, kuberouter.Options{})
}

func TestWhatKubeRouterLeftIsRemovedAndNothingElse(t *testing.T) {
	needs(t, "nft", "iptables-nft", "ipset", "iptables-legacy")
	apart.Run(t, func(t *testing.T) {
		run(t, "create KUBE-CLUSTER-IP hash:ip\ncreate someone-else hash:ip\n", "ipset", "restore")
		run(t, kubeProxy, "iptables-nft-restore")
		for _, at := range []string{"INPUT", "FORWARD", "OUTPUT"} {
			run(t, "", "iptables-nft", "-A", at, "-j", "ACCEPT")
			run(t, "", "ip6tables-nft", "-A", at, "-j", "ACCEPT")
		}
		run(t, strings.Join(strings.Split(otherTables, "\n")[:4], "\n"), "nft", "-f", "-")
		before := state(t)
		if p := decide(t); !p.Nothing() {
			t.Fatalf("before kube-router's rules came, the plan is:\n%s", p.Text())
		}

		run(t, firewall(4).Sets+firewall(6).Sets+"create kube-router-local-pods hash:ip\n", "ipset", "restore")
		run(t, firewall(4).Rules, "iptables-nft-restore", "--noflush")
		run(t, firewall(6).Rules, "ip6tables-nft-restore", "--noflush")
		run(t, strings.Join(strings.Split(otherTables, "\n")[4:], "\n"), "nft", "-f", "-")
		// Of the release of 2018, and behind other rules.
		run(t, "", "iptables-nft", "-A", "FORWARD", "-d", "10.244.1.10", "-m", "physdev", "--physdev-is-bridged", "-j",
			fwChain(t))
		plan := decide(t)
		if len(plan.Jumps) != 7 || len(plan.Tables) != 1 || len(plan.Sets) != 5 || len(plan.Refusals) > 0 ||
			len(plan.Legacy) > 0 {
			t.Errorf("the plan is not what was made:\n%s", plan.Text())
		}
		if err := Remove(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, state(t)); diff != "" {
			t.Errorf("after the removal (-before +after):\n%s", diff)
		}
		if p := decide(t); !p.Nothing() {
			t.Errorf("after the removal the plan is:\n%s", p.Text())
		}
	})
}

// fwChain returns the name of a pod's chain.
func fwChain(t *testing.T) string {
	t.Helper()
	for _, c := range decide(t).Chains {
		if strings.HasPrefix(c.Name, "KUBE-POD-FW-") {
			return c.Name
		}
	}
	t.Fatal("there is no pod's chain")
	return ""
}

// A rule of somebody else that nobody can delete for them (a map leads to the
// chain) stops the removal as a whole.
func TestARemovalThatTheKernelRefusesChangesNothing(t *testing.T) {
	needs(t, "nft", "iptables-nft", "ipset", "iptables-legacy")
	apart.Run(t, func(t *testing.T) {
		run(t, firewall(4).Sets, "ipset", "restore")
		run(t, firewall(4).Rules, "iptables-nft-restore", "--noflush")
		run(t, "add map ip filter theirs { type ipv4_addr : verdict; }\nadd element ip filter theirs { 192.0.2.1 : jump KUBE-NWPLCY-TAIL }\n", "nft", "-f", "-")
		before := state(t)
		if err := Remove(t.Context(), decide(t)); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("error = %v, want one that says that nothing was changed", err)
		}
		if diff := cmp.Diff(before, state(t)); diff != "" {
			t.Errorf("after a refusal (-before +after):\n%s", diff)
		}
	})
}

// The recipe for iptables-legacy does what it says, and then the sets can go.
func TestTheRecipeForIptablesLegacy(t *testing.T) {
	needs(t, "nft", "iptables-nft", "ipset", "iptables-legacy", "awk")
	apart.Run(t, func(t *testing.T) {
		run(t, "create KUBE-CLUSTER-IP hash:ip\n", "ipset", "restore")
		run(t, kubeProxy, "iptables-legacy-restore")
		run(t, "", "ip6tables-legacy", "-A", "FORWARD", "-j", "ACCEPT")
		before := state(t)
		run(t, firewall(4).Sets+firewall(6).Sets, "ipset", "restore")
		run(t, firewall(4).Rules, "iptables-legacy-restore", "--noflush")
		run(t, firewall(6).Rules, "ip6tables-legacy-restore", "--noflush")
		plan := decide(t)
		if len(plan.Legacy) != 2 || len(plan.Chains) > 0 || len(plan.Sets) != 4 {
			t.Errorf("the plan is not what was made:\n%s", plan.Text())
		}
		if err := Remove(t.Context(), plan); err != nil {
			t.Fatalf("with chains in iptables-legacy: %v", err)
		}
		if p := decide(t); len(p.Sets) != 4 {
			t.Errorf("sets that iptables-legacy uses are gone:\n%s", p.Text())
		}
		for _, l := range plan.Legacy {
			if len(l.Chains) != 11 {
				t.Errorf("table %s has %d chains of kube-router, want 11: %v", l, len(l.Chains), l.Chains)
			}
			run(t, kuberouter.Recipe(l), "sh", "-e")
		}
		if err := Remove(t.Context(), decide(t)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, state(t)); diff != "" {
			t.Errorf("after the recipe (-before +after):\n%s", diff)
		}
	})
}

// A program at the health port is kube-router's, unless it says that it is podwall.
func TestSignsThatKubeRouterRuns(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		run(t, "", "ip", "link", "set", "lo", "up")
		var answer string
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_,
				_ = w.Write([]byte(answer))
		})}
		defer server.Close()
		signs := func() int {
			t.Helper()
			list, err := running(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(slices.DeleteFunc(list, func(s string) bool { return !strings.Contains(s, "health port") }))
		}
		if n := signs(); n != 0 {
			t.Errorf("%d signs where nobody listens, want none", n)
		}
		for _, at := range []string{"127.0.0.1:20244", "[::]:20244"} {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			go server.Serve(l)
			for said, want := range map[string]int{"OK": 1, "{}": 1, `{"schema": "podwall.status/v1"}`: 0} {
				answer = said
				if n := signs(); n != want {
					t.Errorf("%s answers %q: %d signs, want %d", at, said, n, want)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		name := t.TempDir() + "/kube-router"
		if err := exec.CommandContext(t.Context(), "cp", "/bin/sleep", name).Run(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), name, "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		list, err := running(t.Context())
		if err != nil || len(list) == 0 || !strings.Contains(strings.Join(list, " "), "has its name") {
			t.Errorf("signs = %v, %v; want the process", list, err)
		}
		_ = cmd.Process.Kill() // ours
		_ = cmd.Wait()
	})
}
