// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/netpol/denied"
)

// restarting are agents of which one ends its first stream, and another one comes later.
type restarting struct {
	*fakeAgents
	mu      sync.Mutex
	streams map[string]int // by node
}

func (r *restarting) list(context.Context) ([]agentPod, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []agentPod{node("n1"), node("n2")}
	if r.streams["n2"] > 0 {
		list = append(list, node("n3"))
	}
	return list, nil
}

func (r *restarting) denied(ctx context.Context, a agentPod, since time.Duration, follow bool, out io.Writer) error {
	r.mu.Lock()
	r.streams[a.Node]++
	n := r.streams[a.Node]
	r.mu.Unlock()
	if a.Node != "n2" {
		return r.fakeAgents.denied(ctx, a, since, follow, out)
	}
	f := flow("n2", "shop/a", "shop/b", n, "shop/b")
	_, err := io.WriteString(out, strings.ReplaceAll(answerOf(denied.Summary{Recording: true}, f), "|", ""))
	if n > 1 {
		<-ctx.Done()
	}
	return err
}

// An agent that starts again, and one that is new, are followed while others still are.
func TestThePageFollowsAgentsThatStartAgain(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a := &restarting{fakeAgents: threeNodes(), streams: map[string]int{}}
	l, end := liveOf(t, a)
	defer end()
	l.listing = 10 * time.Millisecond
	again, later := false, false
	for v := (flowsValue{}); !again || !later; {
		v = poll(t, l, v.Last)
		if v.Problem != "" {
			t.Fatalf("%+v", v)
		}
		for _, f := range v.Flows {
			again = again || strings.HasSuffix(f.Text, "on n2") && f.Count == 2
			later = later || strings.HasSuffix(f.Text, "on n3")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams["n1"] != 1 || a.streams["n2"] != 2 || a.streams["n3"] != 1 {
		t.Errorf("streams: %v", a.streams)
	}
}

// What an agent writes is kept in short: one of a node that was taken over fills no memory.
func TestThePageKeepsShortTexts(t *testing.T) {
	l, end := liveOf(t, &fakeAgents{})
	defer end()
	long := strings.Repeat("é", 1<<19)
	size := 0
	for i := range 3 {
		r := flow("n", "a/"+long, "b/"+long, i+1, "c/"+long)
		r.Node, r.Verdict, r.Protocol = long, denied.Verdict(long), long
		if err := l.add(&r); err != nil {
			t.Fatal(err)
		}
		l.say(long)
	}
	v, _ := l.since(0)
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if size = len(text); size > 8<<10 || len(v.Flows) != 1 || len(v.Flows[0].Key) != 43 {
		t.Errorf("%d flows in %d bytes", len(v.Flows), size)
	}
	// Flows that differ far behind are two.
	r := flow("n", "a/"+long, "b/"+long+"x", 1, "c/d")
	if err := l.add(&r); err != nil {
		t.Fatal(err)
	}
	short := func(f flowValue) bool { return strings.HasSuffix(f.Text, "…") }
	if v, _ := l.since(0); len(v.Flows) != 2 || !slices.ContainsFunc(v.Flows, short) {
		t.Errorf("%d flows", len(v.Flows))
	}
}

// Reading again, following and asking for the status go on at the same time; -race sees what they share.
func TestThePageReadsWhileItFollows(t *testing.T) {
	source := newSource(Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	source.from.Paths = []string{"testdata/shop.yaml"}
	state := newUIState(source)
	l := newUILive(t.Context(), &uiCommand{source: source, agents: threeNodes()}, state)
	ctx, end := context.WithCancel(t.Context())
	l.stop = func() {}
	l.running.Go(func() { l.follow(ctx) })
	if err := state.read(ctx); err != nil {
		t.Error(err)
	}
	end()
	l.wait()
}

// A page that is ended while it reads ends as other commands do.
func TestThePageEndsWhileItReads(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	var said strings.Builder
	status := Run(ctx, "test", []string{"ui", "-f", "testdata/shop.yaml"}, Streams{In: strings.NewReader(""), Out: io.Discard, Err: &said})
	if status == 0 || strings.Contains(said.String(), "waiting") || !strings.Contains(said.String(), "context canceled") {
		t.Errorf("exit status %d, %q", status, said.String())
	}
}
