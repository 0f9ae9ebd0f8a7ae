// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podwall/podwall/internal/gate"
)

// add starts a pod and returns its addresses and how long it took.
func (n *node) add(s sandbox) (ips []netip.Addr, took time.Duration, err error) {
	n.t.Helper()
	for end := time.Now().Add(patience); ; {
		ips, took, err = n.tryAdd(s)
		if err == nil || !strings.Contains(err.Error(), tentative) || time.Now().After(end) {
			return ips, took, err
		}
		n.del(s)
	}
}

// tentative is in the error of a plugin that has waited five seconds for a kernel thread which makes IPv6 addresses
// usable, and which got no time on a busy machine. Runtimes try again.
const tentative = "still has tentative addresses"

func (n *node) tryAdd(s sandbox) (ips []netip.Addr, took time.Duration, err error) {
	start := time.Now()
	err = n.in(func(ctx context.Context) error {
		result, err := n.runtime.AddNetworkList(ctx, n.networks, s.conf)
		if err != nil {
			return err
		}
		took = time.Since(start)
		r, err := current.GetResult(result)
		if err != nil {
			return err
		}
		for _, ip := range r.IPs {
			a, _ := netip.AddrFromSlice(ip.Address.IP)
			ips = append(ips, a.Unmap())
		}
		return nil
	})
	return ips, took, err
}

func (n *node) mustAdd(s sandbox) []netip.Addr {
	n.t.Helper()
	ips, _, err := n.add(s)
	check(n.t, err)
	if len(ips) != 2 {
		n.t.Fatalf("the pod has addresses %v, want one of each family", ips)
	}
	return ips
}

// tries is how long a connection that must not come about is tried. One that
// must is waited for longer; nobody waits when all is well.
const tries = 300 * time.Millisecond

// reaches connects from one sandbox to another, over both families.
func (n *node) reaches(from, to sandbox, ips []netip.Addr, patience time.Duration) (v4, v6 bool) {
	n.t.Helper()
	connects := func(ip netip.Addr) bool {
		l, err := to.ns.Listen(n.t.Context(), "tcp", netip.AddrPortFrom(ip, 80).String())
		if errors.Is(err, syscall.EADDRNOTAVAIL) { // duplicate address detection
			n.await(func() bool {
				l, err = to.ns.Listen(n.t.Context(), "tcp", netip.AddrPortFrom(ip, 80).String())
				return err == nil
			})
		}
		check(n.t, err)
		defer l.Close()
		ctx, cancel := context.WithTimeout(n.t.Context(), patience)
		defer cancel()
		conn, err := from.ns.Dial(ctx, "tcp", netip.AddrPortFrom(ip, 80).String())
		if err != nil {
			return false
		}
		_ = conn.Close() // nothing was sent
		return true
	}
	return connects(ips[0]), connects(ips[1])
}

func (n *node) open(from, to sandbox, ips []netip.Addr) {
	n.t.Helper()
	if v4, v6 := n.reaches(from, to, ips, patience); !v4 || !v6 {
		n.t.Errorf("%s to %s: IPv4 %t, IPv6 %t, want both open", name(from), name(to), v4, v6)
	}
}

func (n *node) closed(from, to sandbox, ips []netip.Addr) {
	n.t.Helper()
	if v4, v6 := n.reaches(from, to, ips, tries); v4 || v6 {
		n.t.Errorf("%s to %s: IPv4 %t, IPv6 %t, want both closed", name(from), name(to), v4, v6)
	}
}

func name(s sandbox) string { return s.conf.Args[2][1] + " in " + s.conf.ContainerID }

// The API never says an address here: what is open is open by the gate.
func TestAPodIsEnforcedBeforeItStarts(t *testing.T) {
	eachPlugin(t, `"timeout": "10s", "onTimeout": "refuse"`, func(t *testing.T, n *node) {
		n.publish(object("web", "1"), object("friend", "2"), object("foe", "3"), onlyFromFriend)
		n.startAgent()
		web, friend, foe := n.sandbox("s-web", "web", "1"), n.sandbox("s-friend", "friend", "2"), n.sandbox("s-foe", "foe", "3")
		n.mustAdd(friend)
		n.mustAdd(foe)
		ips, took, err := n.add(web)
		check(t, err)
		n.open(friend, web, ips) // at once: the reply means what it says
		n.closed(foe, web, ips)
		reply, err := gate.Client{Socket: n.socket}.Add(t.Context(), announced(t, n, web))
		if err != nil || reply.State != gate.Enforced {
			t.Errorf("announcing again: %v %v", reply, err)
		}
		t.Logf("ADD of both plugins took %s; an announcement that is known takes %d µs", took, reply.TookMicros)
		check(t, n.in(func(ctx context.Context) error { return n.runtime.CheckNetworkList(ctx, n.networks, web.conf) }))
		n.del(web)
		if s := n.state(web); s != gate.Unknown {
			t.Errorf("after DEL the state is %q", s)
		}
	})
}

func announced(t *testing.T, n *node, s sandbox) gate.Pod {
	t.Helper()
	list, err := gate.Client{Socket: n.socket}.List(t.Context())
	check(t, err)
	i := slices.IndexFunc(list, func(k gate.Known) bool { return k.Pod.Sandbox == s.conf.ContainerID })
	if i < 0 {
		t.Fatalf("%s is not announced, only %v", name(s), list)
	}
	p := list[i].Pod
	if p.Netns != s.ns.Path() || p.Network != "pods" || !slices.ContainsFunc(p.Links, func(l string) bool { return strings.HasPrefix(l, "veth") }) {
		t.Errorf("announced is %+v, want the namespace's path, the network and the link", p)
	}
	return p
}

func TestAPodOfAnotherUIDStartsClosed(t *testing.T) {
	eachPlugin(t, quick, func(t *testing.T, n *node) {
		n.publish(object("web", "old"), object("friend", "2"), onlyFromFriend)
		n.startAgent()
		web, friend := n.sandbox("s-web", "web", "new"), n.sandbox("s-friend", "friend", "2")
		n.mustAdd(friend)
		ips := n.mustAdd(web)
		n.closed(friend, web, ips)
		if s := n.state(web); s != gate.Unknown {
			t.Errorf("state is %q, want %q", s, gate.Unknown)
		}
		n.publish(object("web", "new"), object("friend", "2"), onlyFromFriend)
		n.await(func() bool { return n.state(web) == gate.Enforced })
		n.open(friend, web, ips)
	})
}

func TestAStartWaitsForThePodsObject(t *testing.T) {
	n := newNode(t, "ptp", `"timeout": "20s", "onTimeout": "refuse"`)
	n.publish(object("friend", "2"), onlyFromFriend)
	n.startAgent()
	web, friend := n.sandbox("s-web", "web", "1"), n.sandbox("s-friend", "friend", "2")
	n.mustAdd(friend)
	done := make(chan error, 1)
	var ips []netip.Addr
	go func() {
		var err error
		ips, _, err = n.add(web)
		done <- err
	}()
	n.await(func() bool {
		list, err := gate.Client{Socket: n.socket}.List(t.Context())
		return err == nil && len(list) == 2
	})
	select {
	case err := <-done:
		t.Fatalf("it started before the pod was known: %v", err)
	default:
	}
	n.publish(object("web", "1"), object("friend", "2"), onlyFromFriend)
	check(t, <-done)
	n.open(friend, web, ips)
}

func TestWithoutAnAgentAPodStartsClosed(t *testing.T) {
	eachPlugin(t, quick, func(t *testing.T, n *node) {
		n.publish(object("web", "1"), object("friend", "2"))
		a := n.startAgent()
		friend := n.sandbox("s-friend", "friend", "2")
		n.mustAdd(friend)
		a.Kill()
		web := n.sandbox("s-web", "web", "1")
		ips, took, err := n.add(web)
		check(t, err)
		if took < 300*time.Millisecond || took > time.Minute {
			t.Errorf("the start took %s, want the timeout of 300ms", took)
		}
		n.closed(friend, web, ips) // no policy isolates it
		n.del(web)
		status := n.in(func(ctx context.Context) error { return n.runtime.GetStatusNetworkList(ctx, n.networks) })
		if e := (*types.Error)(nil); !errors.As(status, &e) || e.Code != 50 {
			t.Errorf("STATUS without agent: %v, want code 50", status)
		}
		n.startAgent()
		n.soon(func(ctx context.Context) error { return n.runtime.GetStatusNetworkList(ctx, n.networks) })
	})
}

// A node that just booted has no rules at all.
func TestAPodThatStartsBeforeAnyAgentIsClosed(t *testing.T) {
	eachPlugin(t, quick, func(t *testing.T, n *node) {
		web, friend := n.sandbox("s-web", "web", "1"), n.sandbox("s-friend", "friend", "2")
		n.mustAdd(friend)
		ips := n.mustAdd(web)
		n.closed(friend, web, ips)
		n.publish(object("web", "1"), object("friend", "2"))
		n.startAgent()
		for _, s := range []sandbox{web, friend} { // as after a restart of the runtime
			n.soon(func(ctx context.Context) error { return n.runtime.CheckNetworkList(ctx, n.networks, s.conf) })
		}
		n.open(friend, web, ips)
	})
}

func TestAStartIsRefusedWhenAskedFor(t *testing.T) {
	n := newNode(t, "ptp", `"timeout": "200ms", "onTimeout": "refuse"`)
	n.publish()
	n.startAgent()
	_, _, err := n.add(n.sandbox("s-web", "web", "1"))
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || !strings.Contains(err.Error(), "no pod shop/web") {
		t.Errorf("error %v, want code 11 that says the pod is not known", err)
	}
}

func TestALateDELOfAnOldSandboxLeavesTheNewOneAlone(t *testing.T) {
	n := newNode(t, "bridge", `"timeout": "10s", "onTimeout": "refuse"`)
	n.publish(object("web", "1"), object("friend", "2"), onlyFromFriend)
	n.startAgent()
	friend, first, second := n.sandbox("s-friend", "friend", "2"), n.sandbox("s-1", "web", "1"), n.sandbox("s-2", "web", "1")
	n.mustAdd(friend)
	old := n.mustAdd(first)
	ips := n.mustAdd(second)
	n.open(friend, second, ips)
	n.closed(friend, first, old) // the pod has another address now
	n.del(first)
	n.open(friend, second, ips)
	if s := n.state(second); s != gate.Enforced {
		t.Errorf("state is %q", s)
	}
}

func TestGCWithdrawsWhatIsNotAttached(t *testing.T) {
	n := newNode(t, "ptp", `"timeout": "10s", "onTimeout": "refuse"`)
	n.publish(object("web", "1"), object("friend", "2"))
	n.startAgent()
	web, friend := n.sandbox("s-web", "web", "1"), n.sandbox("s-friend", "friend", "2")
	n.mustAdd(web)
	n.mustAdd(friend)
	n.announce(gate.Pod{Sandbox: "of-nri", Namespace: "shop", Name: "x", IPs: []netip.Addr{netip.MustParseAddr("10.88.0.99")}})
	config, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "podwall-gate", "socket": n.socket,
		"cni.dev/valid-attachments": []types.GCAttachment{{ContainerID: "s-friend", IfName: "eth0"}}})
	check(t, err)
	check(t, n.runPlugin("GC", config))
	list, err := gate.Client{Socket: n.socket}.List(t.Context())
	check(t, err)
	var left []string
	for _, k := range list {
		left = append(left, k.Pod.Sandbox)
	}
	if !slices.Equal(left, []string{"of-nri", "s-friend"}) {
		t.Errorf("announced are %v, want those that are attached and those of others", left)
	}
}

// announce returns when a pod is announced that nobody knows, whose caller gives
// up then.
func (n *node) announce(p gate.Pod) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	given := make(chan struct{})
	go func() {
		defer close(given)
		_, _ = gate.Client{Socket: n.socket}.Add(ctx, p) // it never becomes known
	}()
	n.await(func() bool {
		list, err := gate.Client{Socket: n.socket}.List(n.t.Context())
		check(n.t, err)
		return slices.ContainsFunc(list, func(k gate.Known) bool { return k.Pod.Sandbox == p.Sandbox })
	})
	cancel()
	<-given
}

// The agent that is stopped in the middle of a start is not the one that
// answers: the next one is.
func TestAStartOutlivesARestartOfTheAgent(t *testing.T) {
	n := newNode(t, "ptp", `"timeout": "30s", "onTimeout": "refuse"`)
	n.publish(object("friend", "2"), onlyFromFriend)
	a := n.startAgent()
	web, friend := n.sandbox("s-web", "web", "1"), n.sandbox("s-friend", "friend", "2")
	n.mustAdd(friend)
	done := make(chan error, 1)
	var ips []netip.Addr
	go func() {
		var err error
		ips, _, err = n.add(web)
		done <- err
	}()
	n.await(func() bool {
		list, err := gate.Client{Socket: n.socket}.List(t.Context())
		return err == nil && len(list) == 2
	})
	a.Stop()
	n.publish(object("web", "1"), object("friend", "2"), onlyFromFriend)
	n.startAgent()
	check(t, <-done)
	check(t, n.in(func(ctx context.Context) error { return n.runtime.CheckNetworkList(ctx, n.networks, friend.conf) }))
	n.open(friend, web, ips)
}

// An agent that answers but cannot reach the API server after a boot has loaded
// nothing yet.
func TestAPodThatStartsBeforeTheFirstSyncIsClosed(t *testing.T) {
	eachPlugin(t, quick, func(t *testing.T, n *node) {
		n.unreachable = true
		n.startAgent()
		web, friend := n.sandbox("s-web", "web", "1"), n.sandbox("s-friend", "friend", "2")
		n.mustAdd(friend)
		ips := n.mustAdd(web)
		n.closed(friend, web, ips)
	})
}
