// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// bypassed returns the text of the problem that pods start without the gate.
func (h house) bypassed() string {
	time.Sleep(time.Minute) // of the bubble: every pass is done
	synctest.Wait()
	for _, p := range h.observer.Status().Problems {
		if p.Subject == "start gate bypassed" {
			return p.Text + "; " + p.Cure
		}
	}
	return ""
}

func (h house) mustAnnounce(t *testing.T, name, ip string) {
	t.Helper()
	h.set(name, name+"-uid")
	if err := h.announce(t, announcement("s-"+name, name, name+"-uid", ip)); err != nil {
		t.Fatal(err)
	}
}

// Where pods come through the gate and then one does not, something else wrote the
// runtime's configuration. It is a problem until a pod comes through the gate again.
func TestAPodThatStartsWithoutTheGateIsAProblemWhereOthersUseIt(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		h.bypassed()
		h.set("early", "e")
		h.set("early", "e", "10.0.0.1")
		if text := h.bypassed(); text != "" {
			t.Errorf("nobody uses the gate, and %q", text)
		}
		h.mustAnnounce(t, "web", "10.0.0.2")
		h.set("web", "web-uid", "10.0.0.2")
		if text := h.bypassed(); text != "" {
			t.Errorf("each pod was announced, and %q", text)
		}
		for _, name := range []string{"a", "b"} {
			h.set(name, name)
			h.set(name, name, "10.0.0.3")
			time.Sleep(time.Second)
		}
		const want = "pod shop/b started without the start gate, the last of 2 since one was announced; run podwall-gate status"
		if text := h.bypassed(); !strings.HasPrefix(text, want) {
			t.Errorf("the problem is %q, want %q", text, want)
		}
		h.mustAnnounce(t, "next", "10.0.0.5")
		if text := h.bypassed(); text != "" {
			t.Errorf("a pod was announced again, and %q", text)
		}
		h.set("web", "another", "10.0.0.7") // of the same name, and not the same pod
		if text := h.bypassed(); !strings.Contains(text, "shop/web") {
			t.Errorf("the problem is %q, want one about shop/web", text)
		}
		h.Off()
		if text := h.bypassed(); text != "" {
			t.Errorf("the gate was uninstalled, and %q", text)
		}
		h.set("c", "c", "10.0.0.8")
		if text := h.bypassed(); text != "" {
			t.Errorf("the gate was uninstalled, and after another pod %q", text)
		}
	})
}

// Pods that the gate cannot have announced to this agent, or that it announced and
// withdrew, are no problem.
func TestWhatIsNotABypassOfTheGate(t *testing.T) {
	inHouse(t, false, func(t *testing.T, h house) {
		h.set("before", "1") // an earlier agent may have heard of it
		h.set("runs", "2", "10.0.0.2")
		h.sync()
		h.bypassed()
		h.mustAnnounce(t, "web", "10.0.0.3")
		h.set("before", "1", "10.0.0.1")
		ctx := t.Context()
		short := announcement("s-short", "short", "3", "10.0.0.4")
		go func() { _ = h.Announce(ctx, short) }() // its object comes when it has gone
		time.Sleep(time.Second)
		h.Withdraw("s-short")
		h.set("short", "3", "10.0.0.4")
		h.store.Update(func(tx *cluster.Tx) {
			key := func(name string) cluster.Key { return cluster.Key{Namespace: "shop", Name: name} }
			ips := []netip.Addr{netip.MustParseAddr("10.0.0.9")}
			tx.SetPod(&cluster.Pod{Key: key("host"), UID: "4", Node: "node1", IPs: ips, HostNetwork: true})
			tx.SetPod(&cluster.Pod{Key: key("done"), UID: "5", Node: "node1", IPs: ips, Finished: true})
			tx.SetPod(&cluster.Pod{Key: key("remote"), UID: "6", Node: "node2", IPs: ips})
			tx.SetPod(&cluster.Pod{Key: key("waits"), UID: "7", Node: "node1"})
		})
		if text := h.bypassed(); text != "" {
			t.Errorf("the problem is %q", text)
		}
		// An address that another sandbox has had meanwhile comes back.
		h.mustAnnounce(t, "thief", "10.0.0.2")
		h.Withdraw("s-thief")
		if text := h.bypassed(); text != "" {
			t.Errorf("after an address came back the problem is %q", text)
		}
	})
}
