// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/oldfirewall"
	"github.com/podwall/podwall/internal/observe"
)

// kubeRouter is the state of a node whose pods kube-router isolates by the usual policies, for one family.
func kubeRouter(family int) oldfirewall.Firewall {
	addr := func(i int) netip.Addr { return cast()[i].addrs[family] }
	pods := []oldfirewall.Pod{
		{Name: victim, Addr: addr(0), Ingress: []netip.Addr{addr(1)}},
		{Name: peer, Addr: addr(1)},
		{Name: jailed, Addr: addr(2), Egress: []netip.Addr{}},
		{Name: stranger, Addr: addr(3)},
	}
	return oldfirewall.New(pods)
}

// loadKubeRouter loads its rules into node1.
func (w *world) loadKubeRouter() {
	w.t.Helper()
	for family, program := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		f := kubeRouter(family)
		_, err := w.run(f.Sets, "ipset", "restore")
		check(w.t, err)
		_, err = w.run(f.Rules, program, "--noflush")
		check(w.t, err)
	}
}

// others lists what is in the kernel and does not belong to podwall.
func (w *world) others() []string {
	w.t.Helper()
	sets, err := w.run("", "ipset", "list", "-n")
	check(w.t, err)
	list := []string{sets}
	for _, program := range []string{"iptables-nft-save", "ip6tables-nft-save"} {
		text, err := w.run("", program)
		check(w.t, err)
		list = append(list, strings.Split(text, "\n")...)
	}
	return slices.DeleteFunc(list, func(line string) bool {
		return strings.HasPrefix(line, "#") ||
			strings.HasPrefix(line, ":")
	})
}

// The migration of docs/migrate-from-kube-router.md: kube-router's rules stay until podwall enforces, then
// they are removed; and back again. Denied packets never pass, allowed ones always do.
func TestKubeRouterIsReplacedUnderTraffic(t *testing.T) {
	needs(t, "nft", "iptables-nft", "ipset")
	eachWiring(t, func(t *testing.T, w *world) {
		if w.wiring == lab.Bridge { // kube-router sees no bridged packet without
			_, err := w.run("", "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")
			check(t, err)
		}
		for _, program := range []string{"iptables-nft", "ip6tables-nft"} { // kube-proxy, say
			for _, at := range []string{"INPUT", "FORWARD", "OUTPUT"} {
				_, err := w.run("", program, "-A", at, "-m", "comment", "--comment", "kubernetes", "-j", "ACCEPT")
				check(t, err)
			}
		}
		before := w.others()
		w.loadKubeRouter()
		removal := func(how string, status int) string {
			t.Helper()
			p := start(t, w.node(), agentProgram(), "--hostname-override=node1", "--remove-kube-router-firewall="+how)
			p.Exits(status)
			return p.Log()
		}
		if text := removal("now", 5); !strings.Contains(text, "podwall does not enforce") {
			t.Errorf("without an agent the removal says %q", text)
		}
		tr := w.traffic()
		tr.pause(300)
		a := w.enforced(w.start())
		s := a.until("of the problem with kube-router's chains", func(s observe.Status) bool {
			return slices.ContainsFunc(s.Problems, func(p observe.Problem) bool { return p.Subject == "kube-router" })
		})
		if !s.Ready {
			t.Errorf("next to kube-router's rules the agent is not ready: %q", s.NotReady)
		}
		want := w.tables()
		tr.pause(300)

		with := w.others()
		now, plan := "now", 0
		if w.wiring == lab.Bridge { // its name is that of the router's
			if text := removal("now", 5); !strings.Contains(text, "now-beside-kube-bridge") {
				t.Errorf("with kube-bridge the removal says %q", text)
			}
			now, plan = "now-beside-kube-bridge", 5
		}
		text := removal("plan", plan)
		for _, words := range []string{"rule   ip filter FORWARD", "chain  ip6 filter KUBE-POD-FW-",
			"ipset  inet6:KUBE-SRC-"} {
			if !strings.Contains(text, words) {
				t.Errorf("the plan has no %q:\n%s", words, text)
			}
		}
		if diff := cmp.Diff(with, w.others()); diff != "" {
			t.Errorf("a plan changed something (-before +after):\n%s", diff)
		}
		removal(now, 0)
		tr.pause(300)
		if diff := cmp.Diff(before, w.others()); diff != "" {
			t.Errorf("after the removal (-before kube-router +after):\n%s", diff)
		}
		w.same("after the removal", want)
		a.until("that kube-router's chains are gone", func(s observe.Status) bool { return len(s.Problems) == 0 })
		if text := removal(now, 0); !strings.Contains(text, "nothing of kube-router's firewall is here") {
			t.Errorf("a second removal says %q", text)
		}

		w.loadKubeRouter() // the way back
		tr.pause(300)
		a.Stop()
		p := start(t, w.node(), agentProgram(), "--hostname-override=node1", "--cleanup-config")
		p.Exits(0)
		tr.pause(300)
		tr.finish(false)
	})
}

// The table in the kernel may be an earlier agent's while the running agent waits for its Node: then only
// kube-router's rules enforce new policies.
func TestKubeRoutersRulesStayUntilTheAgentIsReady(t *testing.T) {
	needs(t, "nft", "iptables-nft", "ipset")
	w := newWorld(t, lab.Routed)
	w.publish(usual()...)
	w.enforced(w.start()).Stop()
	w.loadKubeRouter()
	before := w.others()
	a := w.start("--hostname-override=node9", "--health-addr=127.0.0.1")
	a.until("that it waits for its Node", func(s observe.Status) bool {
		return slices.ContainsFunc(s.Problems, func(p observe.Problem) bool { return p.Subject == "node" })
	})
	text := w.once(5, "--remove-kube-router-firewall=now")
	for _, words := range []string{`there is no Node "node9"`, "wait until /readyz answers 200"} {
		if !strings.Contains(text, words) {
			t.Errorf("the removal does not say %q:\n%s", words, text)
		}
	}
	if diff := cmp.Diff(before, w.others()); diff != "" {
		t.Errorf("the removal changed something (-before +after):\n%s", diff)
	}
}

// While kube-router writes, with new names each time, nothing is removed.
func TestAKubeRouterThatRunsKeepsItsRules(t *testing.T) {
	needs(t, "nft", "iptables-nft", "ipset")
	w := newWorld(t, lab.Routed)
	w.publish(usual()...)
	w.loadKubeRouter()
	w.enforced(w.start())
	p := start(t, w.node(), agentProgram(), "--hostname-override=node1", "--remove-kube-router-firewall=now")
	for i := 0; ; i++ {
		select {
		case <-p.Ended():
		default:
			_, err := w.run("", "iptables-nft", "-N", "KUBE-POD-FW-"+strings.Repeat(string(rune('A'+i%26)), 16))
			if err != nil && i < 26 {
				t.Fatal(err)
			}
			continue
		}
		break
	}
	p.Exits(5)
	if text := p.Log(); !strings.Contains(text, "its chains changed") {
		t.Errorf("the removal says:\n%s", text)
	}
}
