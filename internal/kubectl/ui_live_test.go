// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// liveOf asks these agents.
func liveOf(t *testing.T, a agents, policies ...*cluster.Policy) (*uiLive, func()) {
	t.Helper()
	source := newSource(Streams{Out: io.Discard, Err: io.Discard})
	state := newUIState(source)
	state.scene = newUIScene(newScene(&cluster.Snapshot{Policies: policies}, nil), time.Now())
	ctx, end := context.WithCancel(t.Context())
	l := newUILive(ctx, &uiCommand{source: source, agents: a, facts: fakeFacts{version: 7, all: []string{"n1", "n2", "n3"}}}, state)
	return l, func() {
		end()
		l.wait()
	}
}

func poll(t *testing.T, l *uiLive, after int) flowsValue {
	t.Helper()
	v, err := l.flows(t.Context(), url.Values{"after": {strconv.Itoa(after)}})
	if err != nil {
		t.Fatal(err)
	}
	return v.(flowsValue)
}

// Flows of all nodes come as they are denied, each once, and nothing runs when the page has ended.
func TestThePageFollowsAllAgents(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, end := liveOf(t, threeNodes())
	seen := map[string]flowValue{}
	for v := (flowsValue{}); len(seen) < 4; {
		v = poll(t, l, v.Last)
		for _, f := range v.Flows {
			seen[f.Text] = f
		}
	}
	want := flowValue{Text: "shop/client (10.244.1.10) to shop/web-6bd7f-x4x2x (10.244.2.20) 8080/tcp on n1",
		Time: "2026-11-30T10:01:00Z", Count: 1, Verdict: "denied", Source: "pod/shop/client",
		Destination: "pod/shop/web-6bd7f-x4x2x:8080/tcp"}
	got := seen[want.Text]
	if want.Number, want.Key, want.Reason = got.Number, got.Key, got.Reason; got != want || !strings.Contains(got.Reason, "shop/web") {
		t.Errorf("%+v, want %+v", got, want)
	}
	for text := range seen {
		if strings.ContainsRune(text, '\x1b') {
			t.Errorf("a control character in %q", text)
		}
	}
	end()
}

// Only the newest flows are kept.
func TestThePageKeepsABoundedNumberOfFlows(t *testing.T) {
	l, end := liveOf(t, &fakeAgents{})
	defer end()
	for i := range 3 * maxLive {
		r := flow("n", fmt.Sprintf("a/p%d", i), "a/b", 1, "a/b")
		if err := l.add(&r); err != nil {
			t.Fatal(err)
		}
		l.say(fmt.Sprint("node ", i))
	}
	r := flow("n", fmt.Sprintf("a/p%d", 3*maxLive-1), "a/b", 9, "a/b") // the same flow again
	if err := l.add(&r); err != nil {
		t.Fatal(err)
	}
	if len(l.list) != maxLive || len(l.said) != maxSaid || l.list[maxLive-1].Count != 9 {
		t.Errorf("%d flows and %d messages are kept", len(l.list), len(l.said))
	}
}

// What hinders is said, and it is tried again.
func TestThePageSaysWhyNothingIsFollowed(t *testing.T) {
	l, end := liveOf(t, &fakeAgents{})
	defer end()
	if v := poll(t, l, 0); !strings.Contains(v.Problem, "no agent runs in the namespace podwall-system") {
		t.Errorf("%+v", v)
	}
	l.mu.Lock()
	l.again = time.Time{}
	l.command.agents = threeNodes()
	l.mu.Unlock()
	for v := (flowsValue{}); len(v.Flows) == 0; {
		v = poll(t, l, 0)
	}
}

// Each policy has the number of nodes that enforce its version. A node without an agent enforces none.
func TestThePageSaysWhatIsEnforced(t *testing.T) {
	good := `{"schema":"podwall.enforced/v1","node":"n1","policyVersion":"7","ready":true}`
	behind := `{"schema":"podwall.enforced/v1","node":"n2","policyVersion":"5","ready":true}`
	const long = "2001-01-01T00:00:00Z"
	a := &fakeAgents{pods: []agentPod{node("n1"), node("n2")}, answers: map[string]string{"n1 enforced": good, "n2 enforced": behind}}
	key := func(name string) cluster.Key { return cluster.Key{Namespace: "shop", Name: name} }
	l, end := liveOf(t, a, &cluster.Policy{Key: key("old"), Version: "4"}, &cluster.Policy{Key: key("new"), Version: "7"},
		&cluster.Policy{Key: key("audit"), Version: "4", Audit: true})
	defer end()
	for i := range 2 { // the second answer is the first one
		v, err := l.status(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := v.(statusValue)
		for name, want := range map[string]string{"shop/old": "enforced on 2 of 3 nodes", "shop/new": "enforced on 1 of 3 nodes",
			"shop/audit": "in audit mode on 2 of 3 nodes"} {
			if s.Policies[name] != want {
				t.Errorf("%s: %q, want %q", name, s.Policies[name], want)
			}
		}
		if s.Good || !strings.HasPrefix(s.Text, "1 of 3 nodes enforce all policies") {
			t.Errorf("%+v", s)
		}
		// How old it is can be told, also of one that was kept.
		if now, err := time.Parse(time.RFC3339, s.Now); err != nil || time.Since(now) > time.Hour || (i == 1) != (s.At == long) {
			t.Errorf("at %s, now %s, %v", s.At, s.Now, err)
		}
		l.statusValue.At = long
	}
	if len(a.asked) != 3 { // n2 twice: it was behind
		t.Errorf("agents were asked: %q", a.asked)
	}
	// Of policies that were read again it is asked again, at once.
	l.state.show(newUIScene(newScene(&cluster.Snapshot{Policies: []*cluster.Policy{{Key: key("old"), Version: "8"}}}, nil), time.Now()))
	v, err := l.status(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := v.(statusValue)
	if s.Policies["shop/old"] != "enforced on 0 of 3 nodes" || s.Versions["shop/old"] != "8" ||
		s.Read != l.state.scene.readAt() || s.At == "" {
		t.Errorf("%+v", s)
	}
}

// A flow of any kind is a question that explain takes.
func TestAFlowIsAQuestion(t *testing.T) {
	l, end := liveOf(t, &fakeAgents{})
	defer end()
	r := flow("n", "a/b", "c/d", 1, "c/p")
	r.Destination = denied.End{Address: netip.MustParseAddr("2001:db8::1")}
	if err := l.add(&r); err != nil || l.list[0].Destination != "[2001:db8::1]:8080/tcp" {
		t.Errorf("%+v %v", l.list[0], err)
	}
	r.Port = 0
	if err := l.add(&r); err != nil || l.list[1].Destination != "" {
		t.Errorf("%+v %v", l.list[1], err)
	}
}
