// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// fakeAgents give the same answers that real ones do; install_test of test/cluster asks those.
type fakeAgents struct {
	pods    []agentPod
	answers map[string]string // by node
	err     error             // of nodes without an answer
	mu      sync.Mutex        // guards asked: agents are asked at the same time
	asked   []string
	hang    bool // without an answer, until ctx ends
}

func (f *fakeAgents) list(context.Context) ([]agentPod, error) { return f.pods, nil }

func (f *fakeAgents) denied(ctx context.Context, a agentPod, since time.Duration, follow bool, out io.Writer) error {
	f.mu.Lock()
	f.asked = append(f.asked, fmt.Sprintf("%s %s %t", a.Node, since, follow))
	f.mu.Unlock()
	text, ok := f.answers[a.Node]
	if !ok && f.hang {
		<-ctx.Done()
		return nil
	}
	if !ok {
		return f.err
	}
	for b := range strings.SplitSeq(text, "|") { // in parts that are no lines
		if _, err := io.WriteString(out, b); err != nil {
			return err
		}
	}
	if follow {
		<-ctx.Done()
	}
	return nil
}

func (f *fakeAgents) show(ctx context.Context, a agentPod, what string, out io.Writer) error {
	return f.denied(ctx, agentPod{Node: a.Node + " " + what}, 0, false, out)
}

func node(name string) agentPod {
	return agentPod{Key: cluster.Key{Namespace: "podwall-system", Name: "podwall-" + name}, Node: name, Running: true}
}

// answerOf is what an agent writes.
func answerOf(s denied.Summary, records ...denied.Record) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	for i := range records {
		_ = enc.Encode(denied.Line{Flow: &records[i]})
	}
	_ = enc.Encode(denied.Line{Summary: &s})
	return b.String()[:20] + "|" + b.String()[20:]
}

func flow(node, from, to string, minute int, policies ...string) denied.Record {
	key := func(name string) *cluster.Key {
		ns, short, _ := strings.Cut(name, "/")
		return &cluster.Key{Namespace: ns, Name: short}
	}
	at := time.Date(2026, 11, 30, 10, minute, 0, 0, time.UTC)
	r := denied.Record{Node: node, First: at, Last: at, Count: uint64(minute), Verdict: denied.Denied, Direction: "ingress",
		Protocol: "tcp", Port: 8080, Source: denied.End{Address: netip.MustParseAddr("10.244.1.10"), Pod: key(from)},
		Destination: denied.End{Address: netip.MustParseAddr("10.244.2.20"), Pod: key(to)}, Policies: []cluster.Key{},
		Nearest: &denied.Nearest{Policy: policies[0], PortMatches: true}}
	if from == "" {
		r.Source.Pod = nil
	}
	for _, p := range policies {
		r.Policies = append(r.Policies, *key(p))
	}
	return r
}

func threeNodes() *fakeAgents {
	on := denied.Summary{Recording: true, Recorded: 3}
	flooded := denied.Summary{Recording: true, Recorded: 3, Suppressed: 70, Since: time.Date(2020, 1, 1, 9, 0, 0, 0, time.UTC)}
	return &fakeAgents{pods: []agentPod{node("n1"), node("n2"), node("n3")}, answers: map[string]string{
		"n1": answerOf(on, flow("n1", "shop/client", "shop/web-6bd7f-x4x2x", 1, "shop/web"), flow("n1", "evil/a", "evil/b", 5, "evil/b")),
		"n2": answerOf(flooded, flow("n2", "", "shop/web-6bd7f-z5z5z", 3, "shop/all", "shop/web")),
		"n3": answerOf(on, flow("n3", "shop/client\x1b[31m", "other/db", 2, "other/db")),
	}}
}

// askFlows runs flows with these agents.
func askFlows(ctx context.Context, t *testing.T, a agents, args ...string) (out, said string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := flowsOf(Streams{Out: &o, Err: &e}, a)
	cmd.SetArgs(append(args, "--kubeconfig=testdata/kubeconfig.yaml", "-n", "shop"))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(ctx)
	return o.String(), e.String(), err
}

func TestFlowsOfAllNodes(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", `2026-11-30T10:01:00Z n1 shop/client (10.244.1.10) to shop/web-6bd7f-x4x2x
  (10.244.2.20) 8080/tcp
  no ingress rule of shop/web allows it; nearest: shop/web, rule 0: its ports
    match, its peers do not
2026-11-30T10:02:00Z n3 shop/client�[31m (10.244.1.10) to other/db (10.244.2.20)
  8080/tcp, 2 packets
  no ingress rule of other/db allows it; nearest: other/db, rule 0: its ports
    match, its peers do not
2026-11-30T10:03:00Z n2 10.244.1.10 to shop/web-6bd7f-z5z5z (10.244.2.20)
  8080/tcp, 3 packets
  no ingress rule of shop/all, shop/web allows it; nearest: shop/all, rule 0:
    its ports match, its peers do not
stderr:
node n2: since 2020-01-01T09:00:00Z, 3 packets were recorded and 70 more denied
`},
		{"web-6bd7f-z5z5z --node n2", `2026-11-30T10:03:00Z n2 10.244.1.10 to shop/web-6bd7f-z5z5z (10.244.2.20)
  8080/tcp, 3 packets
  no ingress rule of shop/all, shop/web allows it; nearest: shop/all, rule 0:
    its ports match, its peers do not
stderr:
node n2: since 2020-01-01T09:00:00Z, 3 packets were recorded and 70 more denied
`},
		{"evil/b -A", `2026-11-30T10:05:00Z n1 evil/a (10.244.1.10) to evil/b (10.244.2.20) 8080/tcp, 5
  packets
  no ingress rule of evil/b allows it; nearest: evil/b, rule 0: its ports match,
    its peers do not
stderr:
node n2: since 2020-01-01T09:00:00Z, 3 packets were recorded and 70 more denied
`},
		{"client --policy other/db --node n1", "no flow matches\nstderr:\n"},
		{"-A --limit 1 --node n1", `2026-11-30T10:05:00Z n1 evil/a (10.244.1.10) to evil/b (10.244.2.20) 8080/tcp, 5
  packets
  no ingress rule of evil/b allows it; nearest: evil/b, rule 0: its ports match,
    its peers do not
stderr:
1 older flows are not shown; see --limit
`},
	} {
		out, said, err := askFlows(t.Context(), t, threeNodes(), strings.Fields(c.args)...)
		if diff := cmp.Diff(c.want, out+"stderr:\n"+said); diff != "" || err != nil {
			t.Errorf("flows %s: %v (-want +got):\n%s", c.args, err, diff)
		}
	}
}

func TestFlowsAsJSON(t *testing.T) {
	out, _, err := askFlows(t.Context(), t, threeNodes(), "web", "-o", "json")
	var r flowsReport
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Schema != flowsSchema || len(r.Flows) != 2 || len(r.Nodes) != 3 {
		t.Errorf("%v, %+v", err, r)
	}
}

// What a node does not answer is said, and seen by the exit status.
func TestANodeThatDoesNotAnswer(t *testing.T) {
	off := answerOf(denied.Summary{Why: "the agent runs without --denied-flows-group"})
	for name, c := range map[string]struct {
		change func(*fakeAgents)
		status int // 0 for an error
		said   string
	}{
		"no right": {func(f *fakeAgents) { delete(f.answers, "n2"); f.err = errors.New("no right") }, 3,
			"error: node n2 does not answer: no right"},
		"does not run":       {func(f *fakeAgents) { f.pods[1].Running = false }, 3, "its agent podwall-system/podwall-n2 does not run"},
		"breaks off":         {func(f *fakeAgents) { f.answers["n2"] = f.answers["n2"][:30] }, 3, "its answer is not complete"},
		"writes no answer":   {func(f *fakeAgents) { f.answers["n2"] = "hello\n" }, 3, "reading the agent's answer"},
		"writes without end": {func(f *fakeAgents) { f.answers["n2"] = strings.Repeat("x", 2<<20) }, 3, "token too long"},
		"does not end": {func(f *fakeAgents) { delete(f.answers, "n2"); f.hang = true }, 3,
			"takes longer than 50ms; see --request-timeout"},
		"records nothing":     {func(f *fakeAgents) { f.answers["n2"] = off }, 3, "error: node n2 records no denied flows: the agent runs without"},
		"no agent answers":    {func(f *fakeAgents) { f.answers, f.err = nil, errors.New("gone") }, 0, "error: node n3 does not answer: gone"},
		"no agent is there":   {func(f *fakeAgents) { f.pods = nil }, 0, ""},
		"no such node at all": {func(f *fakeAgents) { f.pods = f.pods[:0] }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := threeNodes()
			c.change(f)
			out, said, err := askFlows(t.Context(), t, f, "--request-timeout=50ms")
			var e exit
			errors.As(err, &e)
			if e.status != c.status || err == nil || !strings.Contains(strings.ReplaceAll(said, "\n  ", " "), c.said) {
				t.Errorf("%v\n%s", err, said)
			}
			if c.status == 3 && !strings.Contains(out, "shop/web-6bd7f-x4x2x") {
				t.Errorf("the other nodes are not shown:\n%s", out)
			}
		})
	}
}

func TestWrongQuestionsAboutFlows(t *testing.T) {
	for args, want := range map[string]string{"--since 0s": "--since", "--limit=-1": "--limit", "--verdict open": "--verdict",
		"--follow -o yaml": "--follow", "--agents-namespace=": "--agents-namespace", "--request-timeout x": "--request-timeout",
		"shop/": "names no pod", "--node n9": "no agent runs on a node n9", "-o xml": "unknown output"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // of one that is followed by mistake
		defer cancel()
		if _, _, err := askFlows(ctx, t, threeNodes(), strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// Who follows sees the flows that are kept, what comes, and what is missed, until the interrupt.
func TestFlowsAreFollowed(t *testing.T) {
	f := threeNodes()
	f.pods = f.pods[:2]
	missed := answerOf(denied.Summary{Recording: true, Missed: 9})
	f.answers["n1"] += answerOf(denied.Summary{Recording: true}, flow("n1", "shop/late", "shop/web", 7, "shop/web")) + missed
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out, said, err := askFlows(ctx, t, f, "--follow", "-o", "json")
	if err != nil || strings.Count(out, `"verdict"`) != 3 || !strings.Contains(out, `"late"`) ||
		!strings.Contains(said, "node n1: 9 flows came faster") || !strings.Contains(said, "70 more denied") {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	for _, q := range f.asked {
		if !strings.HasSuffix(q, " 5m0s true") {
			t.Errorf("asked %q", q)
		}
	}
}

// Pods of a workload are those with a name that a controller makes of its name; those of another workload
// whose name begins with it are not.
func TestPodsOfAWorkloadByName(t *testing.T) {
	for pod, want := range map[string]bool{"web": true, "web-0": true, "web-12": true, "web-x2k4z": true, "web-7c9f5d8b6-x2k4z": true,
		"web-admin-x": false, "web-admin-7c9f5d8b6-x2k4z": false, "web-db-0": false, "webx-0": false, "web-": false, "web-7c9f5d8b6-": false,
		"web-7c9f5d8b6-x2k4z-x2k4z": false, "web-x2k": false, "we": false} {
		f := flowFilter{namespace: "shop", pod: "web"}
		r := flow("n1", "shop/client", "shop/"+pod, 1, "shop/web")
		if got := f.matches(&r); got != want {
			t.Errorf("web is %s: %t", pod, got)
		}
	}
}

// Agents are pods of a DaemonSet with the agent's container, and no others that have their label.
func TestWhichPodsAreAgents(t *testing.T) {
	pod := func(name, owner, container string, controller bool) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "podwall-system", Name: name, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: owner, Name: "podwall", Controller: &controller}}},
			Spec: corev1.PodSpec{NodeName: "n-" + name, Containers: []corev1.Container{{Name: container}}},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: container,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}}
	}
	other := pod("other", "DaemonSet", "agent", true)
	other.OwnerReferences[0].APIVersion = "example.com/v1"
	bare := pod("bare", "DaemonSet", "agent", true)
	bare.OwnerReferences = nil
	starting := pod("a", "DaemonSet", "agent", true)
	starting.Status = corev1.PodStatus{}
	got := agentsAmong([]corev1.Pod{pod("b", "DaemonSet", "agent", true), pod("owned", "DaemonSet", "agent", false), other, bare,
		pod("replica", "ReplicaSet", "agent", true), pod("app", "DaemonSet", "app", true), starting})
	key := func(name string) cluster.Key { return cluster.Key{Namespace: "podwall-system", Name: name} }
	want := []agentPod{{Key: key("a"), Node: "n-a"}, {Key: key("b"), Node: "n-b", Running: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The node of a flow is that of the pod which was asked, whatever its answer says.
func TestAnAgentSpeaksForItsNode(t *testing.T) {
	f := threeNodes()
	f.pods = f.pods[:1]
	f.answers["n1"] = answerOf(denied.Summary{Recording: true, Node: "n2"}, flow("n2", "shop/client", "shop/web", 1, "shop/web"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, args := range [][]string{{"-o", "json"}, {"-o", "json", "--follow"}} {
		out, _, err := askFlows(ctx, t, f, args...)
		if err != nil || strings.Contains(out, "n2") || !strings.Contains(out, "n1") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// What a node does not have of the time that is asked for is said.
func TestRecordsThatDoNotReachBack(t *testing.T) {
	now := time.Now().UTC()
	young := denied.Summary{Recording: true, Since: now.Add(-time.Minute)}
	forgetful := denied.Summary{Recording: true, Forgotten: 7, ForgottenTo: now.Add(-2 * time.Minute)}
	long := denied.Summary{Recording: true, Forgotten: 7, ForgottenTo: now.Add(-time.Hour)}
	silent := denied.Summary{Recording: true, Forgotten: 7}
	flooded := denied.Summary{Recording: true, Suppressed: 7, SuppressedTo: now.Add(-time.Minute)}
	dried := denied.Summary{Recording: true, Suppressed: 7, SuppressedTo: now.Add(-time.Hour)}
	for name, c := range map[string]struct {
		summary denied.Summary
		said    string
	}{
		"whole":          {denied.Summary{Recording: true}, ""},
		"of an old time": {long, ""},
		"young":          {young, "node n1: records reach back to " + young.Since.Format(time.RFC3339) + " only (it records since then)\n"},
		"forgetful": {forgetful, "node n1: records reach back to " + forgetful.ForgottenTo.Format(time.RFC3339) +
			" only (7 older ones are forgotten)\n"},
		"a flood":              {flooded, "node n1: since 0001-01-01T00:00:00Z, 0 packets were recorded and 7 more denied\n"},
		"a flood that is over": {dried, ""},
		"no time":              {silent, "node n1: 7 records are forgotten\n"},
	} {
		f := &fakeAgents{pods: []agentPod{node("n1")}, answers: map[string]string{"n1": answerOf(c.summary)}}
		out, said, err := askFlows(t.Context(), t, f)
		said = strings.ReplaceAll(said, "\n  ", " ")
		if err != nil || out != "no flow was denied\n" || said != c.said {
			t.Errorf("%s: %v\n%s%q, want %q", name, err, out, said, c.said)
		}
	}
}

// An agent that answers without end fills no memory.
func TestAnAnswerIsBounded(t *testing.T) {
	f := &fakeAgents{pods: []agentPod{node("n1")}, answers: map[string]string{"n1": answerOf(denied.Summary{Recording: true},
		slices.Repeat([]denied.Record{flow("n1", "shop/client", "shop/web", 1, "shop/web")}, maxFlows+3)...)}}
	out, said, err := askFlows(t.Context(), t, f, "-o", "json", "--limit=0")
	if err != nil || strings.Count(out, `"verdict"`) != maxFlows || said != "node n1: 3 flows above 10000 are left out\n" {
		t.Errorf("%v, %d flows, %s", err, strings.Count(out, `"verdict"`), said)
	}
}

// What comes after the end of an answer is not read: exec may write when it has returned.
func TestAnAnswerThatEnded(t *testing.T) {
	n, ended := 0, 0
	w := &lineWriter{each: func(denied.Line) { n++ }, end: func() { ended++ }}
	for _, text := range []string{"{}\n{}", "\n", "nothing\n", "{}\n"} {
		if _, err := io.WriteString(w, text); err != nil {
			t.Error(err)
		}
	}
	if err := w.close(); n != 2 || ended != 1 || err == nil {
		t.Errorf("%d lines, ended %d times, %v", n, ended, err)
	}
	late := &lineWriter{each: func(denied.Line) { n++ }}
	if err := late.close(); err != nil {
		t.Error(err)
	}
	if _, _ = io.WriteString(late, "{}\n"); n != 2 {
		t.Error("a line is read after the end")
	}
}
