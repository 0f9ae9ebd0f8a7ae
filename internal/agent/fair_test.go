// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/observe"
)

func policyWith(namespace, name string, ports int) *cluster.Policy {
	list := make([]cluster.Port, ports)
	return &cluster.Policy{Key: cluster.Key{Namespace: namespace, Name: name}, Subject: cluster.Everything(), IsolatesIngress: true,
		Ingress: []cluster.Rule{{Peers: cluster.Peers{Any: true}, Ports: cluster.Ports{List: list}}}}
}

func changes(list ...cluster.Change[cluster.Policy]) cluster.Delta {
	return cluster.Delta{Policies: list}
}

func added(p *cluster.Policy) cluster.Change[cluster.Policy] {
	return cluster.Change[cluster.Policy]{New: p}
}

func startedFair() (*fair, time.Time) {
	f, now := newFair("one", false), time.Unix(1000, 0)
	f.admit(cluster.Delta{}, now)
	return f, now
}

func TestANamespaceInDebtWaitsAlone(t *testing.T) {
	f, now := startedFair()
	big := policyWith("tenant", "big", 16_000)
	if d := f.admit(changes(added(big)), now); len(d.Policies) != 1 {
		t.Fatalf("the first change waits: %v", d.Policies)
	}
	f.charge(map[string]int{"tenant": 60_000}, now) // 1.8 s of a credit of 1 s
	again := cluster.Change[cluster.Policy]{Old: big, New: policyWith("tenant", "big", 15_999)}
	if d := f.admit(changes(again, added(policyWith("other", "deny", 1))), now); len(d.Policies) != 1 || d.Policies[0].New.Key.Namespace != "other" {
		t.Fatalf("admitted %v, want the other namespace alone", d.Policies)
	}
	wait, ok := f.next(now)
	if !ok || wait != 4*time.Second {
		t.Errorf("waits %v (%t), want 0.8 s of debt at a share of 0.2", wait, ok)
	}
	if d := f.admit(cluster.Delta{}, now.Add(wait-time.Millisecond)); len(d.Policies) != 0 {
		t.Errorf("admitted in debt: %v", d.Policies)
	}
	if d := f.admit(cluster.Delta{}, now.Add(wait)); len(d.Policies) != 1 || d.Policies[0].New != again.New {
		t.Errorf("after the debt %v is admitted", d.Policies)
	}
	if _, ok := f.next(now); ok {
		t.Error("something waits for ever")
	}
}

func TestAGiantPolicyLetsOthersGoFirst(t *testing.T) {
	f, now := startedFair()
	d := f.admit(changes(added(policyWith("tenant", "big", giant)), added(policyWith("other", "deny", 1))), now)
	if len(d.Policies) != 1 || d.Policies[0].New.Key.Namespace != "other" {
		t.Errorf("admitted first: %v", d.Policies)
	}
	if wait, ok := f.next(now); !ok || wait != 0 {
		t.Errorf("the next pass comes after %v (%t)", wait, ok)
	}
	busy := cluster.Delta{Namespaces: []cluster.Change[cluster.Namespace]{{New: &cluster.Namespace{Name: "x"}}}}
	if d := f.admit(busy, now.Add(yields-1)); len(d.Policies) != 0 {
		t.Error("others do not go first")
	}
	if d := f.admit(busy, now.Add(yields)); len(d.Policies) != 1 {
		t.Error("others go first for ever")
	}
}

// A pod that starts behind a policy that waits must not be judged without it.
func TestANewPodWaitsForThePoliciesOfItsNamespace(t *testing.T) {
	f, now := startedFair()
	f.charge(map[string]int{"tenant": 60_000}, now)
	f.admit(changes(added(policyWith("tenant", "deny", 1))), now)
	pod := func(namespace, name, node string) *cluster.Pod {
		return &cluster.Pod{Key: cluster.Key{Namespace: namespace, Name: name}, Node: node, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	}
	here, gone := pod("tenant", "here", "one"), pod("tenant", "gone", "one")
	d := f.admit(cluster.Delta{Pods: []cluster.Change[cluster.Pod]{{New: here}, {Old: gone}, {New: pod("tenant", "away", "two")}, {New: pod("other", "p", "one")}}}, now)
	if len(d.Pods) != 3 || !f.held()[here.Key] || len(f.held()) != 1 {
		t.Errorf("admitted %d pods, held %v", len(d.Pods), f.held())
	}
	d = f.admit(cluster.Delta{}, now.Add(time.Hour))
	if len(d.Policies) != 1 || len(d.Pods) != 1 || d.Pods[0].New != here {
		t.Errorf("released together: %d policies, %d pods", len(d.Policies), len(d.Pods))
	}
}

// What ends a pod, or tells of one that is there, does not wait: its address may be
// another's by now. Nor does any pod where unknown ones are open.
func TestOnlyNewPodsWait(t *testing.T) {
	at := func(labels string) *cluster.Pod {
		return &cluster.Pod{Key: cluster.Key{Namespace: "tenant", Name: "p"}, Node: "one", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
			Labels: cluster.NewLabels(map[string]string{"app": labels})}
	}
	finished := at("a")
	finished.Finished = true
	for _, tt := range []struct {
		name   string
		change cluster.Change[cluster.Pod]
		open   bool
		waits  bool
	}{
		{"new", cluster.Change[cluster.Pod]{New: at("a")}, false, true},
		{"new, where unknown pods are open", cluster.Change[cluster.Pod]{New: at("a")}, true, false},
		{"gets its address", cluster.Change[cluster.Pod]{Old: &cluster.Pod{Key: at("a").Key, Node: "one"}, New: at("a")}, false, true},
		{"relabelled", cluster.Change[cluster.Pod]{Old: at("a"), New: at("b")}, false, false},
		{"finished", cluster.Change[cluster.Pod]{Old: at("a"), New: finished}, false, false},
		{"gone", cluster.Change[cluster.Pod]{Old: at("a")}, false, false},
	} {
		f, now := startedFair()
		f.open = tt.open
		f.charge(map[string]int{"tenant": 60_000}, now)
		f.admit(changes(added(policyWith("tenant", "deny", 1))), now)
		d := f.admit(cluster.Delta{Pods: []cluster.Change[cluster.Pod]{tt.change}}, now)
		if (len(d.Pods) == 0) != tt.waits {
			t.Errorf("%s: waits is %t", tt.name, len(d.Pods) == 0)
		}
	}
}

func TestDebtIsBounded(t *testing.T) {
	f, now := startedFair()
	f.charge(map[string]int{"tenant": 10_000_000}, now)
	f.admit(changes(added(policyWith("tenant", "deny", 1))), now)
	if wait, _ := f.next(now); wait != 10*time.Second {
		t.Errorf("the namespace waits for %v", wait)
	}
}

func TestAPassTakesABoundedNumberOfEntries(t *testing.T) {
	f, now := startedFair()
	var list []cluster.Change[cluster.Policy]
	for i := range 50 {
		list = append(list, added(policyWith(fmt.Sprint("tenant", i), "p", giant-100)))
	}
	sum := 0
	for range 50 {
		d := f.admit(changes(list...), now)
		list = nil
		if n := entries(d.Policies); n > onePass {
			t.Fatalf("%d entries in a pass", n)
		}
		sum += len(d.Policies)
	}
	if sum != 50 {
		t.Errorf("%d of 50 policies went on", sum)
	}
}

// Whatever waits, nothing is lost and nothing comes twice: each change begins with
// what went through last, and in the end everything is there.
func TestWhatWaitsIsNeitherLostNorRepeated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, now := startedFair()
		policies, pods := map[cluster.Key]*cluster.Policy{}, map[cluster.Key]*cluster.Pod{}
		seenPolicies, seenPods := map[cluster.Key]*cluster.Policy{}, map[cluster.Key]*cluster.Pod{}
		take := func(d cluster.Delta) {
			for _, c := range d.Policies {
				k := policyOf(c).Key
				if seenPolicies[k] != c.Old {
					t.Fatalf("%v begins with another value", k)
				}
				seenPolicies[k] = c.New
			}
			for _, c := range d.Pods {
				var k cluster.Key
				if c.New != nil {
					k = c.New.Key
				} else {
					k = c.Old.Key
				}
				if seenPods[k] != c.Old {
					t.Fatalf("pod %v begins with another value", k)
				}
				seenPods[k] = c.New
			}
		}
		for i := range rapid.IntRange(1, 20).Draw(t, "steps") {
			var d cluster.Delta
			for _, ns := range []string{"a", "b"} {
				key := cluster.Key{Namespace: ns, Name: "p"}
				switch rapid.IntRange(0, 5).Draw(t, "what") {
				case 0:
					p := policyWith(ns, "p", rapid.SampledFrom([]int{1, giant}).Draw(t, "size"))
					d.Policies, policies[key] = append(d.Policies, cluster.Change[cluster.Policy]{Old: policies[key], New: p}), p
				case 1:
					if policies[key] != nil {
						d.Policies = append(d.Policies, cluster.Change[cluster.Policy]{Old: policies[key]})
						delete(policies, key)
					}
				case 2:
					p := &cluster.Pod{Key: key, Node: rapid.SampledFrom([]string{"one", "two"}).Draw(t, "node"), UID: fmt.Sprint(i)}
					d.Pods, pods[key] = append(d.Pods, cluster.Change[cluster.Pod]{Old: pods[key], New: p}), p
				case 3:
					if pods[key] != nil {
						d.Pods = append(d.Pods, cluster.Change[cluster.Pod]{Old: pods[key]})
						delete(pods, key)
					}
				case 4:
					f.charge(map[string]int{ns: 50_000}, now)
				}
			}
			take(f.admit(d, now))
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
		}
		for range 3 {
			now = now.Add(time.Hour)
			take(f.admit(cluster.Delta{}, now))
		}
		for _, ns := range []string{"a", "b"} {
			key := cluster.Key{Namespace: ns, Name: "p"}
			if seenPolicies[key] != policies[key] || seenPods[key] != pods[key] {
				t.Fatalf("%v is not as it is in the end", key)
			}
		}
		if _, ok := f.next(now); ok {
			t.Fatal("something waits for ever")
		}
	})
}

// However many namespaces spend all that they may, and whether they are in debt or
// stop just before, together they take half of the loop's time.
func TestAllNamespacesTogetherTakeHalf(t *testing.T) {
	const namespaces, each, passes, step = 50, 1_000, 3_000, 20 * time.Millisecond
	for name, room := range map[string]time.Duration{"in debt": -time.Hour, "just before debt": each * unitCost} {
		f, now := startedFair()
		spent, waits := time.Duration(0), 0
		for pass := range passes {
			var list []cluster.Change[cluster.Policy]
			for i := range namespaces {
				ns := fmt.Sprint("tenant", i)
				if f.waiting[ns] == nil && f.accounts.left(ns, now) >= room {
					list = append(list, added(policyWith(ns, "p", 10)))
				}
			}
			calm := fmt.Sprint("calm", pass)
			d := f.admit(changes(append(list, added(policyWith(calm, "p", 1)))...), now)
			if !slices.ContainsFunc(d.Policies, func(c cluster.Change[cluster.Policy]) bool { return policyOf(c).Key.Namespace == calm }) {
				waits++
			}
			for _, c := range d.Policies {
				if ns := policyOf(c).Key.Namespace; ns != calm {
					f.charge(map[string]int{ns: each}, now)
					spent += each * unitCost
				}
			}
			now = now.Add(step)
		}
		if most := namespaces*fairCredit + passes*step/2 + namespaces*each*unitCost; spent > most || spent < most/2 {
			t.Errorf("%s: they took %v of %v, want %v at most", name, spent, passes*step, most)
		}
		if waits > 0 {
			t.Errorf("%s: others waited %d times", name, waits)
		}
	}
}

// The accounts equal a walk in small steps, and what waits is woken when it may go on.
func TestAccountsAreFilledAtOneRate(t *testing.T) {
	a, now := newAccounts(), time.Unix(1000, 0)
	a.advance(now)
	walk := map[string]time.Duration{}
	for i := range 9 {
		cost := time.Duration(i+1) * 300 * time.Millisecond
		a.spend(fmt.Sprint(i), cost, now)
		walk[fmt.Sprint(i)] = fairCredit - cost
	}
	left := a.left("8", now)
	wait := a.until(left)
	for elapsed := time.Duration(0); elapsed < wait; elapsed += time.Millisecond {
		n := len(walk)
		for ns := range walk {
			if walk[ns] += time.Duration(rate(n) * float64(time.Millisecond)); walk[ns] >= fairCredit {
				delete(walk, ns)
			}
		}
	}
	if got, want := a.left("7", now.Add(wait)), walk["7"]; got.Round(20*time.Millisecond) != want.Round(20*time.Millisecond) {
		t.Errorf("there is %v left, in small steps %v", got, want)
	}
	if got := a.left("8", now.Add(wait)); got < -time.Millisecond || got > time.Millisecond {
		t.Errorf("after %v there is %v left, want nothing", wait, got)
	}
	if a.left("8", now.Add(wait+time.Hour)) != fairCredit || len(a.full) != 0 {
		t.Errorf("full accounts are kept: %v", a.full)
	}
}

func TestPodsThatWaitForPoliciesAreHeld(t *testing.T) {
	f, now := startedFair()
	f.charge(map[string]int{"tenant": 60_000}, now)
	pod := podAt("tenant", "one", "10.0.0.1")
	f.admit(cluster.Delta{Pods: []cluster.Change[cluster.Pod]{pod}, Policies: changes(added(policyWith("tenant", "deny", 1))).Policies}, now)
	l := &Loop{fair: f}
	held := l.heldPods(&policy.Model{Layout: &policy.Layout{}}, datapath.Report{})
	if len(held) != 1 || held[0].key != pod.New.Key || held[0].why != observe.HeldPolicies {
		t.Errorf("%v are held", held)
	}
}

// A pass asks with the time of its begin after what it cost was charged at its end.
func TestTheTimeOfAPassIsCountedOnce(t *testing.T) {
	a, begin := newAccounts(), time.Unix(1000, 0)
	a.spend("tenant", 2*time.Second, begin)
	end := begin.Add(time.Second)
	want := a.left("tenant", end)
	a.advance(begin)
	if got := a.left("tenant", end); got != want {
		t.Errorf("after a question with an earlier time there is %v left, want %v", got, want)
	}
}
