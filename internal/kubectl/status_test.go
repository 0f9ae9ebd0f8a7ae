// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// scripted agents give one answer after the other; the last one stays.
type scripted struct {
	fakeAgents
	mu      sync.Mutex
	scripts map[string][]string // by node
}

func (s *scripted) show(ctx context.Context, a agentPod, what string, out io.Writer) error {
	s.mu.Lock()
	list := s.scripts[a.Node]
	if len(list) > 1 {
		s.scripts[a.Node] = list[1:]
	}
	s.mu.Unlock()
	switch {
	case what != "enforced":
		return fmt.Errorf("asked for %s", what)
	case len(list) == 0:
		<-ctx.Done()
		return nil
	case strings.HasPrefix(list[0], "error: "):
		return errors.New(list[0][7:])
	}
	_, err := io.WriteString(out, list[0])
	return err
}

// state is an agent's answer.
func state(version string, notReady ...string) string {
	text, _ := json.Marshal(enforcedNode{Schema: enforcedSchema, Node: "liar", Version: "v1", PolicyVersion: version,
		Ready: len(notReady) == 0, NotReady: notReady, Pods: 4, Isolated: 3})
	return string(text)
}

func problem(version, text string) string {
	list, _ := json.Marshal([]string{text})
	return strings.Replace(state(version), `"pods"`, fmt.Sprintf(`"problems":%s,"pods"`, list), 1)
}

type fakeFacts struct {
	version uint64
	all     []string
	own, ns map[string]string
	missing error // of everything but the policy
	absent  error // of the policy
}

func (f fakeFacts) newest(context.Context) (uint64, int, error) { return f.version, 7, f.missing }
func (f fakeFacts) nodes(context.Context) ([]string, error)     { return f.all, f.missing }
func (f fakeFacts) policy(context.Context, string, string) (uint64, map[string]string, map[string]string, error) {
	return f.version, f.own, f.ns, f.absent
}

func scriptedNodes(scripts map[string][]string, names ...string) *scripted {
	s := &scripted{scripts: scripts}
	for _, name := range names {
		s.pods = append(s.pods, node(name))
	}
	return s
}

func askStatus(t *testing.T, a agents, f clusterFacts, args ...string) (out, said string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	c := &statusCommand{source: newSource(Streams{Out: &o, Err: &e}), agents: a, facts: f, pause: time.Millisecond}
	status = exitOf(c.command(), args)
	return o.String(), e.String(), status
}

func askWait(t *testing.T, a agents, f clusterFacts, args ...string) (out, said string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	c := &waitCommand{source: newSource(Streams{Out: &o, Err: &e}), agents: a, facts: f, pause: time.Millisecond}
	status = exitOf(c.command(), append(args, "--kubeconfig=testdata/kubeconfig.yaml"))
	return o.String(), e.String(), status
}

// exitOf runs a command and returns its exit status.
func exitOf(cmd *cobra.Command, args []string) int {
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	var e exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.status
	}
	return statusUsage
}

// The status names what each node lacks; what is behind is asked again once.
func TestStatusOfAllNodes(t *testing.T) {
	a := scriptedNodes(map[string][]string{"n1": {state("70")}, "n2": {state("69"), problem("71", "pods \x1b[31m held")},
		"n3": {state("60")}, "n4": {state("70", "node open: on purpose")}, "n5": {"error: no right"}, "n6": {state("", "waiting")}},
		"n1", "n2", "n3", "n4", "n5", "n6")
	out, said, status := askStatus(t, a, fakeFacts{version: 70, all: []string{"n1", "n2", "n7"}})
	want := `2 of 7 nodes enforce all policies (7, the newest of resourceVersion 70)
  NODE  VERSION  PODS  ISOLATED  AUDITED  HELD  PROBLEMS
  n1    70       4     3         0        0     0
  n2    71       4     3         0        0     1
  n3    60       4     3         0        0     0
  n4    70       4     3         0        0     1
  n5    ?        ?     ?         ?        ?     ?
  n6    none     4     3         0        0     1
n2: problem: pods �[31m held
n3: it enforces the policies as they were at resourceVersion 60
n4: not ready: node open: on purpose
n5: no answer: no right
n6: waiting; it enforces no version of the policies yet
n7: no agent
`
	if diff := cmp.Diff(want, out); diff != "" || said != "" || status != statusNo {
		t.Errorf("exit status %d, stderr %q (-want +got):\n%s", status, said, diff)
	}
	out, _, _ = askStatus(t, a, fakeFacts{version: 70, all: []string{"n7"}}, "-o", "json")
	var r statusReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Schema != statusSchema || len(r.Nodes) != 6 ||
		r.Nodes[0].Node != "n1" || r.Nodes[0].PolicyVersion != "70" || r.Nodes[4].Error == "" || len(r.WithoutAgent) != 1 {
		t.Errorf("%v: %+v", err, r)
	}
}

func TestTheExitStatusOfStatus(t *testing.T) {
	good := map[string][]string{"n1": {state("70")}, "n2": {state("70")}}
	all := []string{"n1", "n2"}
	for name, c := range map[string]struct {
		n2    string
		facts fakeFacts
		want  int
	}{
		"all enforce":     {state("70"), fakeFacts{version: 70, all: all}, 0},
		"one is ahead":    {state("80"), fakeFacts{version: 70, all: all}, 0},
		"one is behind":   {state("69"), fakeFacts{version: 70, all: all}, statusNo},
		"without agent":   {state("70"), fakeFacts{version: 70, all: []string{"n3"}}, statusNo},
		"no answer":       {"error: gone", fakeFacts{version: 70, all: all}, statusNotWritten},
		"no right":        {state("70"), fakeFacts{missing: errors.New("forbidden")}, statusNotWritten},
		"another program": {`{"ready": true, "policyVersion": "99"}`, fakeFacts{version: 70, all: all}, statusNotWritten},
		"no JSON":         {"hello", fakeFacts{version: 70, all: all}, statusNotWritten},
		"without end":     {strings.Repeat("x", maxEnforced+1), fakeFacts{version: 70, all: all}, statusNotWritten},
		"no number":       {state("abc"), fakeFacts{version: 70, all: all}, statusNo},
	} {
		good["n2"] = []string{c.n2}
		if out, said, status := askStatus(t, scriptedNodes(good, "n1", "n2"), c.facts); status != c.want {
			t.Errorf("%s: exit status %d, want %d\n%s%s", name, status, c.want, out, said)
		}
	}
}

// Of many nodes only those are listed of which there is something to say.
func TestStatusOfManyNodes(t *testing.T) {
	scripts, names := map[string][]string{}, []string{}
	for i := range 300 {
		name := fmt.Sprintf("n%03d", i)
		names, scripts[name] = append(names, name), []string{state("70")}
	}
	scripts["n123"] = []string{state("9")}
	out, _, status := askStatus(t, scriptedNodes(scripts, names...), fakeFacts{version: 70, all: names})
	if status != statusNo || strings.Count(out, "\n") != 5 || !strings.Contains(out, "  n123  9 ") ||
		!strings.Contains(out, "and 299 nodes of which there is nothing to say") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// The wait ends when the last node enforces the policy.
func TestWaitUntilAllNodesEnforce(t *testing.T) {
	a := scriptedNodes(map[string][]string{"n1": {state("70")}, "n2": {"error: gone", state("69"), state("70", "open"), state("71")}},
		"n1", "n2")
	out, said, status := askWait(t, a, fakeFacts{version: 70, all: []string{"n1", "n2"}}, "shop/web")
	if status != 0 || out != "shop/web is enforced on 2 of 2 nodes (resourceVersion 70)\n" || said != "waiting for 1 of 2 nodes\n" {
		t.Errorf("exit status %d\n%s%s", status, out, said)
	}
}

func TestTheExitStatusOfWait(t *testing.T) {
	audit := map[string]string{"podwall.io/mode": "audit"}
	enforce := map[string]string{"podwall.io/mode": "enforce"}
	all := []string{"n1", "n2"}
	for name, c := range map[string]struct {
		n2    string
		facts fakeFacts
		args  string
		want  int
		says  string
	}{
		"enforced": {state("70"), fakeFacts{version: 70, all: all}, "web", 0, "default/web is enforced on 2 of 2 nodes"},
		"behind": {state("69"), fakeFacts{version: 70, all: all}, "web", statusNo,
			"n2: it enforces the policies as they were at resourceVersion 69"},
		"open":          {state("70", "node open"), fakeFacts{version: 70, all: all}, "web", statusNo, "n2: not ready: node open"},
		"hangs":         {"", fakeFacts{version: 70, all: all}, "web --timeout 20ms", statusNo, "n2: no answer: it takes longer than"},
		"without agent": {state("70"), fakeFacts{version: 70, all: []string{"n3"}}, "web", statusNotWritten, "n3: no agent"},
		"no right": {state("70"), fakeFacts{version: 70, missing: errors.New("forbidden")}, "web", statusNotWritten,
			"error: forbidden"},
		"in audit mode": {state("70"), fakeFacts{version: 70, all: all, own: audit}, "web", statusNotWritten,
			"is in force on 2 of 2 nodes"},
		"its namespace is": {state("70"), fakeFacts{version: 70, all: all, ns: audit}, "web", statusNotWritten,
			"its namespace is in audit mode"},
		"but it is not":       {state("70"), fakeFacts{version: 70, all: all, own: enforce, ns: audit}, "web", 0, "is enforced"},
		"no policy":           {state("70"), fakeFacts{absent: errors.New("not found")}, "web", statusUsage, ""},
		"another condition":   {state("70"), fakeFacts{}, "web --for=ready", statusUsage, ""},
		"no time":             {state("70"), fakeFacts{}, "web --timeout=0s", statusUsage, ""},
		"no name":             {state("70"), fakeFacts{}, "shop/", statusUsage, ""},
		"two slashes":         {state("70"), fakeFacts{}, "a/b/c", statusUsage, ""},
		"another output form": {state("70"), fakeFacts{}, "web -o xml", statusUsage, ""},
	} {
		scripts := map[string][]string{"n1": {state("70")}, "n2": {c.n2}}
		if c.n2 == "" {
			delete(scripts, "n2")
		}
		args := append([]string{"--timeout=30ms"}, strings.Fields(c.args)...)
		out, said, status := askWait(t, scriptedNodes(scripts, "n1", "n2"), c.facts, args...)
		if text := strings.ReplaceAll(out+said, "\n  ", " "); status != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%s: exit status %d, want %d and %q\n%s", name, status, c.want, c.says, text)
		}
	}
}
