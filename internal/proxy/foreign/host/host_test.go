// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/proxy/foreign"
)

func TestMain(m *testing.M) { entry.Try(m) }

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func look(t *testing.T) foreign.Inventory {
	t.Helper()
	inv, err := Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// Not every kernel has dummy interfaces, so a bridge stands for one.
func TestInterfacesAreCountedAndRemoved(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		for _, args := range []string{"link add kube-ipvs0 type bridge", "link set kube-ipvs0 up", "link set lo up",
			"addr add 10.96.0.1/32 dev kube-ipvs0", "addr add 10.96.0.10/32 dev kube-ipvs0",
			"addr add fd00:10:96::1/128 dev kube-ipvs0", "link add other type bridge"} {
			run(t, "ip", strings.Fields(args)...)
		}
		want := []foreign.Link{{Name: "kube-ipvs0", Kind: "bridge", Addresses: 3}, {Name: "other", Kind: "bridge"}}
		var got []foreign.Link
		for _, l := range look(t).Links {
			if l.Kind == "bridge" {
				got = append(got, l)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("interfaces (-want +got):\n%s", diff)
		}
		plan := foreign.Plan{Steps: []foreign.Step{{Text: "interfaces", Links: []string{"kube-ipvs0", "gone"}}}}
		refused := foreign.Plan{Steps: plan.Steps, Refusals: []foreign.Refusal{{Why: "it runs"}}}
		if err := Remove(t.Context(), refused); err == nil || !strings.Contains(err.Error(), "nothing may be removed") {
			t.Errorf("a plan with refusals: %v", err)
		}
		if _, err := netlink.LinkByName("kube-ipvs0"); err != nil {
			t.Errorf("a plan with refusals was carried out: %v", err)
		}
		if err := Remove(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if _, err := netlink.LinkByName("kube-ipvs0"); err == nil {
			t.Error("the interface is still there")
		}
		if _, err := netlink.LinkByName("other"); err != nil {
			t.Errorf("another interface: %v", err)
		}
	})
}

func TestSetsAreRemovedAfterTheRulesThatUseThem(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		run(t, "ipset", "create", "KUBE-CLUSTER-IP", "hash:ip,port")
		run(t, "ipset", "create", "theirs", "hash:ip")
		run(t, "iptables-nft", "-t", "nat", "-N", "KUBE-SERVICES")
		run(t, "iptables-nft", "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES")
		run(t, "iptables-nft", "-t", "nat", "-A", "KUBE-SERVICES", "-m", "set", "--match-set", "KUBE-CLUSTER-IP", "dst,dst", "-j", "ACCEPT")
		plan := foreign.Decide(look(t), true)
		if len(plan.Steps) != 2 || len(plan.Refusals) > 0 {
			t.Fatalf("the plan is:\n%s", plan.Text())
		}
		if err := Remove(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		inv := look(t)
		if diff := cmp.Diff([]string{"theirs"}, inv.Sets); diff != "" {
			t.Errorf("sets (-want +got):\n%s", diff)
		}
		if p := foreign.Decide(inv, false); !p.Nothing() {
			t.Errorf("left:\n%s", p.Text())
		}
	})
}

// What changed since the plan was made fails the step as a whole.
func TestAnOldPlanChangesNothing(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		run(t, "nft", "add table ip kube-proxy")
		run(t, "nft", "add table ip6 kube-proxy")
		plan := foreign.Decide(look(t), true)
		run(t, "nft", "delete table ip kube-proxy")
		if err := Remove(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("error = %v, want one that says that nothing was changed", err)
		}
		if p := foreign.Decide(look(t), true); len(p.Found) != 1 {
			t.Errorf("afterwards:\n%s", p.Text())
		}
	})
}

// The pages by which kube-proxy is recognised, and others at its ports.
func TestWhoAnswersAtThePortsOfKubeProxy(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		run(t, "ip", "link", "set", "lo", "up")
		const page = `{"lastUpdated": "2026-11-30T13:00:00Z", "currentTime": "2026-11-30T13:00:00Z", "healthy": true}`
		tests := []struct {
			at, body, server string
			want             int
		}{
			{"127.0.0.1:10249", "nftables", "", 1}, {"[::]:10249", "iptables", "", 1}, {"127.0.0.1:10249", "<html>", "", 0},
			{"0.0.0.0:10256", page, "", 1}, {"[::1]:10256", page, "podwall", 0}, {"127.0.0.1:10256", "{}", "", 0},
			{"127.0.0.1:10256", "ok", "", 0}, {"127.0.0.1:10257", page, "", 0},
		}
		for _, tt := range tests {
			l, err := net.Listen("tcp", tt.at)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Server", tt.server)
				_, _ = w.Write([]byte(tt.body))
			})}
			go server.Serve(l)
			if signs := look(t).Running; len(signs) != tt.want {
				t.Errorf("%s answers %q: signs %v, want %d", tt.at, tt.body, signs, tt.want)
			}
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A kube-router that serves no Services is no sign.
func TestProcessesOfProxies(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		for _, tt := range []struct {
			program, flag string
			want          []foreign.Sign
		}{
			{"kube-router", "--run-router=true", []foreign.Sign{{Proxy: foreign.KubeRouter}}},
			{"kube-router", "--run-service-proxy=false", nil},
			{"kube-proxy", "--config=x", []foreign.Sign{{Proxy: foreign.KubeProxy}}},
			{"kube-proxy2", "--config=x", nil},
		} {
			name := filepath.Join(t.TempDir(), tt.program)
			run(t, "cp", "/bin/sh", name)
			cmd := exec.Command(name, "-c", "echo; read x", tt.flag) // waits for its input
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil { // it runs
				t.Fatal(err)
			}
			signs := look(t).Running
			for i := range signs {
				signs[i].Text = ""
			}
			if diff := cmp.Diff(tt.want, signs); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", tt.program, tt.flag, diff)
			}
			_ = in.Close()
			_ = cmd.Wait()
		}
	})
}
