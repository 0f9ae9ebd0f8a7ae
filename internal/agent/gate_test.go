// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/observe"
)

// slow is a kernel that takes its time, and fails as long as it is told to.
type slow struct {
	kernel
	mu        sync.Mutex // guards everything below
	committed *program.Program
	broken    bool
}

const commitTime = 20 * time.Millisecond

func (k *slow) Apply(_ context.Context, p *program.Program) (datapath.Report, error) {
	time.Sleep(commitTime) // in a bubble, where time is not real
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken {
		return datapath.Report{}, errors.New("the kernel refuses")
	}
	k.committed = p
	return datapath.Report{}, nil
}

func (k *slow) set(broken bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = broken
}

// has returns the names of the pods that the kernel has at an address.
func (k *slow) has(ip string) (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.committed == nil {
		return nil
	}
	for _, p := range k.committed.Pods {
		if p.Addr == netip.MustParseAddr(ip) {
			names = append(names, p.Name)
		}
	}
	return names
}

// house is a running loop with a gate.
type house struct {
	*agent.Gate
	kernel   *slow
	store    *cluster.Store
	observer *observe.Observer
}

// inHouse runs a test in a bubble of its own time.
func inHouse(t *testing.T, synced bool, test func(t *testing.T, h house)) {
	synctest.Test(t, func(t *testing.T) {
		h := house{kernel: &slow{}}
		loop := newLoop(&h.kernel.kernel)
		loop.Kernel = h.kernel
		h.store, h.observer = loop.Store, loop.Observer
		loop.Gate = agent.NewGate(loop.Node, loop.Store)
		h.Gate = loop.Gate
		if synced {
			h.sync()
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- loop.Run(ctx) }()
		test(t, h)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (h house) sync() {
	h.store.Update(func(tx *cluster.Tx) {
		for _, k := range cluster.Kinds() {
			tx.SetSynced(k)
		}
	})
}

func (h house) set(name, uid string, ips ...string) {
	p := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, UID: uid, Node: "node1"}
	for _, ip := range ips {
		p.IPs = append(p.IPs, netip.MustParseAddr(ip))
	}
	h.store.Update(func(tx *cluster.Tx) { tx.SetPod(p) })
}

func announcement(sandbox, name, uid, ip string) gate.Pod {
	return gate.Pod{Sandbox: sandbox, Namespace: "shop", Name: name, UID: uid, IPs: []netip.Addr{netip.MustParseAddr(ip)}}
}

// announce waits a second of the bubble's time.
func (h house) announce(t *testing.T, p gate.Pod) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return h.Announce(ctx, p)
}

func (h house) want(t *testing.T, ip, name string) {
	t.Helper()
	if got := h.kernel.has(ip); len(got) != 1 || got[0] != name {
		t.Errorf("the kernel has %v at %s, want %s", got, ip, name)
	}
}

func TestAnAnnouncementIsAnsweredWhenTheKernelHasThePod(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		synctest.Wait()
		time.Sleep(time.Minute) // all is quiet
		h.set("web", "1")
		time.Sleep(time.Minute)
		start := time.Now()
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		h.want(t, "10.0.0.1", "shop/web")
		if took := time.Since(start); took > commitTime+time.Millisecond {
			t.Errorf("it took %s, want the time of one commit and no waiting for more changes", took)
		}
		start = time.Now()
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err != nil || time.Since(start) > 0 {
			t.Errorf("what is enforced already is answered with %v after %s", err, time.Since(start))
		}
	})
}

func TestAnAnnouncementThatComesDuringAPassWaitsForTheNext(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		time.Sleep(time.Minute)
		h.set("web", "1")
		time.Sleep(commitTime/2 + 5*time.Millisecond) // in the middle of the pass for that
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		h.want(t, "10.0.0.1", "shop/web")
	})
}

func TestAnAnnouncementWaitsForThePodsObject(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		time.AfterFunc(500*time.Millisecond, func() { h.set("web", "1") })
		h.set("old", "0", "10.0.0.1")
		time.Sleep(100 * time.Millisecond)
		h.want(t, "10.0.0.1", "shop/old")
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		h.want(t, "10.0.0.1", "shop/web")
	})
}

func TestAnAnnouncementThatCannotBeKeptSaysWhy(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(h house)
		unknown bool
		want    string
	}{
		{"no object", func(house) {}, true, "no pod shop/web"},
		{"an object of another UID", func(h house) { h.set("web", "0") }, true, `UID "1"`},
		{"a kernel that refuses", func(h house) { h.set("web", "1"); h.kernel.set(true) }, false, "the kernel has not taken"},
		{"the API knows better", func(h house) {
			h.set("web", "1")
			time.AfterFunc(time.Millisecond, func() { h.set("web", "1", "10.0.0.9") })
		}, false, "the API says"},
		{"a sandbox that goes", func(h house) {
			time.AfterFunc(time.Millisecond, func() { h.Withdraw("s") })
		}, false, "withdrawn"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inHouse(t, true, func(t *testing.T, h house) {
				time.Sleep(time.Minute)
				tt.prepare(h)
				err := h.announce(t, announcement("s", "web", "1", "10.0.0.1"))
				if err == nil || errors.Is(err, gate.ErrUnknown) != tt.unknown || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %q, unknown %t", err, tt.want, tt.unknown)
				}
			})
		})
	}
}

func TestAWithdrawalEndsTheWaitAtOnce(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		time.Sleep(time.Minute)
		start := time.Now()
		time.AfterFunc(10*time.Millisecond, func() { h.Withdraw("s") })
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err == nil || time.Since(start) > 10*time.Millisecond {
			t.Errorf("error %v after %s, want one after 10ms", err, time.Since(start))
		}
	})
}

func TestAnAnnouncementDuringAFailureIsEnforcedLater(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		h.kernel.set(true)
		h.set("web", "1")
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err == nil {
			t.Error("it is answered as enforced")
		}
		if list := h.Announced(); len(list) != 1 || list[0].State != gate.Isolated {
			t.Errorf("announced are %+v, want one isolated", list)
		}
		h.kernel.set(false)
		time.Sleep(time.Minute) // the loop tries again by itself
		if list := h.Announced(); len(list) != 1 || list[0].State != gate.Enforced {
			t.Errorf("announced are %+v, want one enforced", list)
		}
		h.want(t, "10.0.0.1", "shop/web")
	})
}

func TestNothingIsAnsweredBeforeTheFirstSync(t *testing.T) {
	inHouse(t, false, func(t *testing.T, h house) {
		h.set("web", "1")
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err == nil || !strings.Contains(err.Error(), "no complete list") {
			t.Errorf("error %v, want one about the first sync", err)
		}
		h.sync()
		if err := h.announce(t, announcement("s", "web", "1", "10.0.0.1")); err != nil {
			t.Error(err)
		}
		h.want(t, "10.0.0.1", "shop/web")
	})
}

// Many pods at once: each answer is true when it is given.
func TestManyAnnouncementsAtOnce(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		var starts sync.WaitGroup
		for i := range 50 {
			name, ip := fmt.Sprintf("p%d", i), fmt.Sprintf("10.0.1.%d", i+1)
			starts.Go(func() {
				time.AfterFunc(time.Duration(i%7)*11*time.Millisecond, func() { h.set(name, "1") })
				time.Sleep(time.Duration(i%5) * 13 * time.Millisecond)
				if err := h.announce(t, announcement("s-"+name, name, "1", ip)); err != nil {
					t.Error(err)
				}
				h.want(t, ip, "shop/"+name)
				if i%2 == 0 {
					h.Withdraw("s-" + name)
				}
			})
		}
		starts.Wait()
		if got := len(h.Announced()); got != 25 {
			t.Errorf("%d are announced, want 25", got)
		}
	})
}

func TestTheDoorForgetsWhatTheStoreForgets(t *testing.T) {
	inHouse(t, true, func(t *testing.T, h house) {
		gone, stop := context.WithCancel(t.Context())
		stop() // the runtime waits for none of them
		for i := range cluster.MaxAnnounced + 100 {
			_ = h.Announce(gone, announcement(fmt.Sprint("s", i), fmt.Sprint("ghost", i), "", fmt.Sprintf("10.2.%d.%d", i/256, i%256)))
		}
		if n := len(h.Announced()); n != cluster.MaxAnnounced {
			t.Errorf("%d sandboxes are announced, want %d", n, cluster.MaxAnnounced)
		}
		if n := h.Remembered(); n > cluster.MaxAnnounced {
			t.Errorf("the gate remembers %d sandboxes, want at most %d", n, cluster.MaxAnnounced)
		}
	})
}
