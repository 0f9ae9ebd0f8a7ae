// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/source/feed"
)

// placedLoop is a loop of node1, at 192.0.2.1, that knows all but the Nodes.
type placedLoop struct {
	*agent.Loop
	kernel *kernel
	found  []string
	ended  chan error
}

func startPlaced(t *testing.T, optional bool, nodes ...*cluster.Node) *placedLoop {
	t.Helper()
	k := &kernel{}
	p := &placedLoop{Loop: newLoop(k), kernel: k, ended: make(chan error, 1)}
	p.Place = &agent.Place{
		Local:    func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil },
		Found:    func(list []netip.Addr) { p.found = append(p.found, fmt.Sprint(list)) },
		Optional: optional,
	}
	p.Store.Update(func(tx *cluster.Tx) {
		tx.ReplaceNodes(nodes)
		for _, kind := range cluster.Kinds() {
			tx.SetSynced(kind)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { p.ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		synctest.Wait()
	})
	time.Sleep(2 * time.Minute) // longer than the first sync may take
	synctest.Wait()
	return p
}

func (p *placedLoop) set(n *cluster.Node) {
	p.Store.Update(func(tx *cluster.Tx) { tx.SetNode(n) })
	time.Sleep(time.Second)
	synctest.Wait()
}

// problem returns the text of the problem of the node; blocking if it is.
func (p *placedLoop) problem() (text string, blocking bool) {
	for _, problem := range p.Observer.Status().Problems {
		if problem.Subject == "node" {
			return problem.Text + "; " + problem.Cure, problem.Blocking
		}
	}
	return "", false
}

func nodeAt(name string, addrs ...string) *cluster.Node {
	n := &cluster.Node{Name: name}
	for _, a := range addrs {
		n.Addrs = append(n.Addrs, netip.MustParseAddr(a))
	}
	return n
}

// Invariant 13. The kernel is left as it was found, however long it takes, and
// enforcing begins by itself when the Node is right.
func TestNothingIsEnforcedBeforeTheNodeIsKnownToBeThisOne(t *testing.T) {
	var many []*cluster.Node
	for i := range 5000 {
		many = append(many, nodeAt(fmt.Sprintf("worker-%04d", i), "203.0.113.1"))
	}
	for name, tt := range map[string]struct {
		nodes []*cluster.Node
		want  string
	}{
		"no Nodes":     {nil, `there is no Node "node1"; no Node can be seen; set NODE_NAME`},
		"capitals":     {[]*cluster.Node{nodeAt("a"), nodeAt("NODE1", "192.0.2.1")}, "Nodes are NODE1, a; "},
		"a domain":     {[]*cluster.Node{nodeAt("node2"), nodeAt("node1.example.org", "192.0.2.1")}, "Nodes are node1.example.org, node2; "},
		"many":         {append(many, nodeAt("node2")), "of 5001 Nodes the names most like it are node2, worker-"},
		"no addresses": {[]*cluster.Node{nodeAt("node1")}, "Node node1 has no addresses yet; "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := startPlaced(t, false, tt.nodes...)
				text, blocking := p.problem()
				if !strings.Contains(text, tt.want) || !blocking || len(text) > 400 {
					t.Errorf("problem %q, blocking %t, want one that blocks and says %q", text, blocking, tt.want)
				}
				if s := p.Observer.Status(); s.Ready || !strings.Contains(fmt.Sprint(s.NotReady), "ode") || p.kernel.applied > 0 || p.found != nil {
					t.Errorf("ready %t because of %q, %d programs, addresses %v", s.Ready, s.NotReady, p.kernel.applied, p.found)
				}
				p.set(nodeAt("node1", "198.51.100.7", "192.0.2.1"))
				if text, _ := p.problem(); text != "" || !p.Observer.Status().Ready || p.kernel.applied == 0 || fmt.Sprint(p.found) != "[[198.51.100.7 192.0.2.1]]" {
					t.Errorf("with its Node: problem %q, %d programs, addresses %v", text, p.kernel.applied, p.found)
				}
			})
		})
	}
}

func TestANodeThatIsAnotherMachinesEndsTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPlaced(t, false, nodeAt("node1"))
		p.set(nodeAt("node1", "192.0.2.9"))
		select {
		case err := <-p.ended:
			if !errors.Is(err, agent.ErrPlacement) || !strings.Contains(err.Error(), "node1 (192.0.2.9)") || p.kernel.applied > 0 {
				t.Errorf("ended with %v after %d programs", err, p.kernel.applied)
			}
		default:
			t.Error("the agent goes on")
		}
	})
}

// What was true at the start is watched: enforcement goes on, and somebody is told.
func TestANodeThatChangesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPlaced(t, false, nodeAt("node1", "192.0.2.1"))
		expect := func(step, want string) {
			t.Helper()
			text, blocking := p.problem()
			if blocking || want == "" && text != "" || !strings.Contains(text, want) || !p.Observer.Status().Ready {
				t.Errorf("%s: problem %q, blocking %t, not ready %q; want %q", step, text, blocking, p.Observer.Status().NotReady, want)
			}
		}
		expect("at first", "")
		p.set(nodeAt("node1", "192.0.2.1", "2001:db8::1"))
		expect("another address", "")
		p.set(nodeAt("node1", "192.0.2.9"))
		expect("addresses of another machine", "none of the addresses of node node1 (192.0.2.9)")
		p.set(nodeAt("node1", "192.0.2.1"))
		expect("back", "")
		p.Store.Update(func(tx *cluster.Tx) { tx.DeleteNode("node1") })
		time.Sleep(time.Second)
		synctest.Wait()
		expect("deleted", `there is no Node "node1"`)
		p.set(nodeAt("node1", "192.0.2.1"))
		expect("made again", "")
		if got := fmt.Sprint(p.found); got != "[[192.0.2.1] [192.0.2.1 2001:db8::1] [192.0.2.1]]" {
			t.Errorf("the datapath was told %s", got)
		}
	})
}

// A directory of manifests need not hold Nodes. One that comes later is used.
func TestWithoutNodesInManifestsTheCheckDoesNotApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPlaced(t, true)
		if p.kernel.applied == 0 || !p.Observer.Status().Ready || p.found != nil {
			t.Errorf("%d programs, addresses %v, not ready %q", p.kernel.applied, p.found, p.Observer.Status().NotReady)
		}
		p.set(nodeAt("node1", "192.0.2.1"))
		if fmt.Sprint(p.found) != "[[192.0.2.1]]" {
			t.Errorf("the datapath was told %v", p.found)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := startPlaced(t, true, nodeAt("node2", "192.0.2.1"))
		if text, blocking := p.problem(); !blocking || !strings.Contains(text, "Nodes are node2") || p.kernel.applied > 0 {
			t.Errorf("with Nodes of others: problem %q, %d programs", text, p.kernel.applied)
		}
	})
}

// fed is a source whose feeds a test sets.
type fed struct{ list atomic.Pointer[[]feed.Feed] }

func newFed(list ...feed.Feed) *fed {
	f := &fed{}
	f.set(list...)
	return f
}

func (f *fed) set(list ...feed.Feed) { f.list.Store(&list) }

func (f *fed) Feeds() []feed.Feed { return *f.list.Load() }

func TestAFirstSyncThatFailsRepeatsItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(&kernel{})
		ctx, cancel := context.WithCancel(t.Context())
		feeds := agent.NewFeeds(newFed(
			feed.Feed{Kind: "namespaces", Since: time.Now(), Err: "the API server cannot be reached: x509: unknown authority"},
			feed.Feed{Kind: "pods", Since: time.Now(), Err: "the API server cannot be reached: x509: unknown authority"},
			feed.Feed{Kind: "nodes", Since: time.Now(), Err: "not allowed", Cure: "bind a ClusterRole"}), l.Observer, l.Log)
		go feeds.Run(ctx)
		l.Store.Update(func(tx *cluster.Tx) { tx.SetSynced(cluster.Policies) })
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		time.Sleep(30*time.Second + time.Millisecond)
		const cause = ": namespaces, pods: the API server cannot be reached: x509: unknown authority (for 30s); nodes: not allowed (for 30s); bind a ClusterRole"
		if got := fmt.Sprint(l.Observer.Status().NotReady); !strings.Contains(got, cause) {
			t.Errorf("not ready because of %s, want the causes", got)
		}
		err := <-ended
		if !errors.Is(err, agent.ErrNotSynced) || !strings.Contains(err.Error(), strings.ReplaceAll(cause, "30s", "1m0s")) {
			t.Errorf("ended with %v, want the causes", err)
		}
		cancel()
		synctest.Wait()
	})
}

// What was known stays enforced, so the node stays ready, and says that it sees
// nothing new.
func TestASourceThatIsLostIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.NewRegistry(), observe.Info{})
		now := time.Now()
		f := newFed(feed.Feed{Kind: "pods", Connected: true, Since: now, Heard: now}, feed.Feed{Kind: "manifests", Connected: true, Since: now, Heard: now})
		ctx, cancel := context.WithCancel(t.Context())
		go agent.NewFeeds(f, o, newLoop(&kernel{}).Log).Run(ctx)
		check := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			text := ""
			for _, p := range o.Status().Problems {
				if p.Blocking {
					t.Errorf("the problem blocks: %s", p)
				}
				text += p.String()
			}
			if want == "" && text != "" || !strings.Contains(text, want) {
				t.Errorf("problems %q, want %q", text, want)
			}
		}
		check(14*time.Minute, "")
		check(2*time.Minute, "source of pods: nothing was heard since")
		f.set(feed.Feed{Kind: "pods", Since: time.Now(), Heard: time.Now(), Err: "refused", Cure: "ask"})
		check(59*time.Second, "")
		check(2*time.Second, "refused; changes are not seen, what was known before stays enforced; ask")
		if s := o.Status().Feeds; len(s) != 1 || s[0].Connected || s[0].Error != "refused" || s[0].LastWord == nil {
			t.Errorf("the status page says %+v", s)
		}
		f.set(feed.Feed{Kind: "pods", Connected: true, Since: time.Now(), Heard: time.Now()})
		check(2*time.Second, "")
		cancel()
		synctest.Wait()
	})
}
