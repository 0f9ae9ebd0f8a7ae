// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/program"
)

// recorder keeps what the loop applies. The first commits fail with the given
// errors, as those of a busy kernel do.
type recorder struct {
	kernel
	fail     []error
	report   datapath.Report // of those that succeed
	log      *slog.Logger    // of the loop; nil for none
	programs []string
	at       []time.Time
	applying func() // is called first; may be nil
}

func (r *recorder) Apply(_ context.Context, p *program.Program) (datapath.Report, error) {
	if r.applying != nil {
		r.applying()
	}
	r.programs, r.at = append(r.programs, p.String()), append(r.at, time.Now())
	if len(r.fail) > 0 {
		err := r.fail[0]
		r.fail = r.fail[1:]
		return datapath.Report{}, err
	}
	return r.report, nil
}

// run runs a loop over a synced store, in a bubble of made-up time, and stops
// it when the test's function returns.
func run(t *testing.T, r *recorder, f func(l *agent.Loop, settle func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r.denied = make(chan struct{}) // of this bubble
		l := newLoop(&r.kernel)
		l.Kernel = r
		if r.log != nil {
			l.Log = r.log
		}
		l.Store.Update(func(tx *cluster.Tx) {
			for _, k := range cluster.Kinds() {
				tx.SetSynced(k)
			}
			tx.SetNamespace(&cluster.Namespace{Name: "shop"})
			tx.SetPod(pod("web", "node1", "10.0.0.1"))
		})
		<-l.Store.Changed() // else the first pass has two causes
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		f(l, func() { time.Sleep(time.Second); synctest.Wait() })
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the loop ended with %v", err)
		}
	})
}

func pod(name, node, ip string) *cluster.Pod {
	return &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: node, IPs: []netip.Addr{netip.MustParseAddr(ip)},
		Labels: cluster.NewLabels(map[string]string{"app": name})}
}

// policy isolates web for ingress and lets in the pods of the given apps, each
// by a rule of its own.
func policy(name string, apps ...string) *cluster.Policy {
	s := func(app string) cluster.Selector {
		return cluster.NewSelector(labels.SelectorFromSet(labels.Set{"app": app}))
	}
	p := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: name}, Subject: s("web"), IsolatesIngress: true}
	for i, app := range apps {
		p.Ingress = append(p.Ingress, cluster.Rule{Index: i, Ports: cluster.Ports{Any: true},
			Peers: cluster.Peers{List: []cluster.Peer{{Pods: s(app)}}}})
	}
	return p
}

// A kernel that is busy, or has no room for the answer, is asked again until
// it takes the program; nothing is given up and nothing else is sent between.
func TestACommitThatTheKernelRefusesIsTriedAgain(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EBUSY, unix.ENOBUFS, unix.EINTR, unix.EAGAIN, unix.ENOMEM} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			refused := fmt.Errorf("committing to table podwall: %w", errno)
			r := &recorder{fail: []error{refused, refused, refused}}
			run(t, r, func(l *agent.Loop, settle func()) {
				settle()
				if s := l.Observer.Status(); s.Ready {
					t.Error("ready, though nothing is enforced yet")
				}
				for range 10 {
					settle()
				}
				if s := l.Observer.Status(); !s.Ready {
					t.Errorf("not ready after the kernel took it: %v", s)
				}
			})
			if len(r.programs) != 4 {
				t.Fatalf("%d tries, want the three refused and one", len(r.programs))
			}
			for i := 1; i < len(r.programs); i++ {
				if r.programs[i] != r.programs[0] {
					t.Errorf("try %d sends another program:\n%s", i, r.programs[i])
				}
				if wait := r.at[i].Sub(r.at[i-1]); wait < 500*time.Millisecond || wait > 5*time.Second {
					t.Errorf("try %d comes after %s", i, wait)
				}
			}
		})
	}
}

// What changes while the kernel refuses is in the next try; a kernel too old
// for us is not asked again.
func TestWhatChangesWhileTheKernelRefusesIsInTheNextTry(t *testing.T) {
	r := &recorder{}
	run(t, r, func(l *agent.Loop, settle func()) {
		settle()
		r.fail = []error{unix.EBUSY}
		l.Store.Update(func(tx *cluster.Tx) { tx.SetPolicy(policy("p", "db")) })
		l.Store.Update(func(tx *cluster.Tx) { tx.SetPod(pod("db", "node2", "10.0.0.2")) })
		settle()
		settle()
		if last := r.programs[len(r.programs)-1]; len(r.fail) > 0 || !strings.Contains(last, "10.0.0.2") {
			t.Errorf("the last try misses the change:\n%s", last)
		}
	})
	l := newLoop(&kernel{})
	for _, k := range cluster.Kinds() {
		l.Store.Update(func(tx *cluster.Tx) { tx.SetSynced(k) })
	}
	l.Kernel = &recorder{fail: []error{datapath.ErrUnsupported}}
	if err := l.Run(t.Context()); !errors.Is(err, datapath.ErrUnsupported) {
		t.Errorf("the loop ended with %v", err)
	}
}

// A policy comes as a whole: no program isolates its pods without everything
// that it allows. One that is replaced by another in one change leaves no
// program between, neither an open one nor one that allows both.
func TestNoProgramHoldsHalfAPolicy(t *testing.T) {
	r := &recorder{}
	run(t, r, func(l *agent.Loop, settle func()) {
		l.Store.Update(func(tx *cluster.Tx) {
			for i, app := range []string{"a", "b", "c", "d"} {
				tx.SetPod(pod(app, "node2", fmt.Sprintf("10.0.1.%d", i+1)))
			}
		})
		settle()
		r.programs = nil
		for i := range 20 {
			next, last := []string{"a", "b"}, []string{"c", "d"}
			if i%2 > 0 {
				next, last = last, next
			}
			l.Store.Update(func(tx *cluster.Tx) {
				tx.DeletePolicy(cluster.Key{Namespace: "shop", Name: strings.Join(last, "-")})
				tx.SetPolicy(policy(strings.Join(next, "-"), next...))
			})
			time.Sleep(time.Duration(i) * time.Millisecond) // in, at and after the loop's rest
		}
		settle()
	})
	seen := map[string]bool{}
	for _, p := range r.programs {
		seen[peersIn(p)] = true
	}
	if len(seen) != 2 || !seen["10.0.1.1 10.0.1.2"] || !seen["10.0.1.3 10.0.1.4"] {
		t.Errorf("programs let in %v, want both of one policy or both of the other", seen)
	}
}

// peersIn returns the peers that a program's sets hold.
func peersIn(program string) string {
	var list []string
	for i := 1; i <= 4; i++ {
		if a := fmt.Sprintf("10.0.1.%d", i); strings.Contains(program, a) {
			list = append(list, a)
		}
	}
	return strings.Join(list, " ")
}

// The connection table fills up while no policy changes, so it is looked at in
// each period of verification; nobody is made not ready by it.
func TestAConnectionTableThatFillsUpIsSaidWithoutAChange(t *testing.T) {
	r := &recorder{}
	r.entries.Store(50)
	run(t, r, func(l *agent.Loop, settle func()) {
		for _, step := range []struct {
			entries  uint32
			problems int
		}{{50, 0}, {85, 1}, {78, 1}, {70, 0}, {78, 0}, {100, 1}} {
			settle() // the first pass, or after the tick
			r.entries.Store(step.entries)
			time.Sleep(l.SyncPeriod)
			settle()
			s := l.Observer.Status()
			if len(s.Problems) != step.problems || !s.Ready || s.Connections == nil || s.Connections.Entries != int(step.entries) {
				t.Errorf("with %d of 100 entries: %v, ready %v, problems %v, want %d", step.entries, s.Connections, s.Ready, s.Problems, step.problems)
			}
		}
	})
	if len(r.programs) != 1 {
		t.Errorf("%d passes, want one: nothing changed", len(r.programs))
	}
}

// A pod of this node does not wait for a burst of pods of other nodes, and when its
// commit fails nothing of the burst is lost.
func TestAPodOfThisNodeIsCommittedBeforeABurstOfOthers(t *testing.T) {
	burst := func(tx *cluster.Tx) {
		tx.SetPod(pod("new", "node1", "10.0.0.2"))
		for i := range 1000 {
			p := pod(fmt.Sprintf("far%d", i), "node2", fmt.Sprintf("10.1.%d.%d", i/250, i%250))
			p.Labels = cluster.NewLabels(map[string]string{"app": "far"})
			tx.SetPod(p)
		}
	}
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint(fails), func(t *testing.T) {
			r := &recorder{}
			run(t, r, func(l *agent.Loop, settle func()) {
				l.Store.Update(func(tx *cluster.Tx) { tx.SetPolicy(policy("p", "far")) })
				settle()
				before := len(r.programs)
				if fails {
					r.fail = []error{unix.EBUSY}
				}
				l.Store.Update(burst)
				settle()
				if list := r.programs[before:]; len(list) != 2 || !strings.Contains(list[0], "10.0.0.2") || strings.Contains(list[0], "10.1.3.249") || !strings.Contains(list[1], "10.1.3.249") {
					t.Errorf("%d programs: %.200q", len(list), list)
				}
			})
		})
	}
}
