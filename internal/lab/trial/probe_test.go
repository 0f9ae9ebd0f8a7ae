// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/trial"
)

const twoPods = `
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x}
spec: {nodeName: node1}
status: {podIP: 10.244.1.5}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: x}
spec: {nodeName: node1}
status: {podIP: 10.244.1.6}
`

const closed = `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: x}
spec: {podSelector: {}, policyTypes: [Ingress]}
`

// pair is two pods on one node, and the question whether one reaches the other.
func pair(text string) (trial.State, trial.Question) {
	a, b := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.1.6")
	return trial.State{Files: map[string][]byte{"x.yaml": []byte(text)}, Pods: []lab.PodSpec{
		{Key: cluster.Key{Namespace: "x", Name: "a"}, Node: "node1", IPs: []netip.Addr{a}},
		{Key: cluster.Key{Namespace: "x", Name: "b"}, Node: "node1", IPs: []netip.Addr{b}},
	}}, trial.Question{From: "x/a", To: "x/b", Dst: b, Proto: packet.TCP, Port: 80}
}

func ask(t *testing.T, tr *trial.Trial, s trial.State, q trial.Question) trial.Answer {
	t.Helper()
	if err := tr.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	answers, err := tr.Probe(t.Context(), []trial.Question{q})
	if err != nil {
		t.Fatal(err)
	}
	return answers[0]
}

func TestVerdictsFollowTheManifests(t *testing.T) {
	tr := newTrial(t, lab.Bridge)
	for _, step := range []struct {
		text string
		want trial.Verdict
	}{{twoPods, trial.Allowed}, {twoPods + closed, trial.Denied}, {twoPods, trial.Allowed}} {
		s, q := pair(step.text)
		if got := ask(t, tr, s, q); got.Verdict != step.want || got.Problem != "" || got.Packets != 1 {
			t.Errorf("answer %+v, want %s with one packet", got, step.want)
		}
	}
	want := trial.Totals{Sent: 3, Arrived: 2, Dropped: 1}
	if got := tr.Totals(); got != want {
		t.Errorf("totals %+v, want %+v", got, want)
	}
}

func TestAnEndpointReachesItselfWithoutAPacket(t *testing.T) {
	tr := newTrial(t, lab.Routed)
	s, q := pair(twoPods + closed)
	q.From = q.To
	if got, want := ask(t, tr, s, q), (trial.Answer{Verdict: trial.Allowed}); got != want {
		t.Errorf("answer %+v, want %+v", got, want)
	}
}

// A packet that nobody dropped and that did not arrive is neither allowed nor
// denied, whatever time has passed.
func TestALostPacketIsNoDenial(t *testing.T) {
	tr := newTrial(t, lab.Routed)
	s, q := pair(twoPods)
	q.To, q.Dst = "", netip.MustParseAddr("198.51.100.1")
	if got := ask(t, tr, s, q); got.Verdict != trial.Unknown || got.Problem == "" || got.Packets < 2 {
		t.Errorf("answer %+v, want an unknown one after a second try", got)
	}
}

// A kernel may leave out an answer that nobody dropped: the question is asked again, and what is never
// answered is said.
func TestWhatIsNotAnsweredIsAskedAgain(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	tr := newTrial(t, lab.Routed)
	s, q := pair(twoPods)
	q.Proto = packet.UDP
	if got := ask(t, tr, s, q); got.Problem != "" || got.Packets != 1 {
		t.Fatalf("answer %+v, want one without a problem", got)
	}
	for _, c := range []struct {
		loses, problem string
	}{{"quota 100 bytes", ""}, {"", "arrived, but no answer came back"}} { // the first one of them, all
		cmd := exec.Command("nft", "table inet loss; flush ruleset; table inet loss { chain out { "+
			"type filter hook output priority 0; icmp type destination-unreachable "+c.loses+" drop; }; }")
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := tr.Bed().Pod(s.Pods[1].Key).NS.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err, said.String())
		}
		got := ask(t, tr, s, q)
		if got.Verdict != trial.Allowed || got.Problem != c.problem || got.Packets != 2 {
			t.Errorf("answer %+v, want two packets and the problem %q", got, c.problem)
		}
	}
}

func TestAPacketOfAnotherEndpointIsNoArrival(t *testing.T) {
	tr := newTrial(t, lab.Routed)
	s, q := pair(twoPods)
	q.To = "node2"
	if got := ask(t, tr, s, q); got.Verdict != trial.Unknown || got.Problem != "arrived at x/b" {
		t.Errorf("answer %+v, want an unknown one that says where it arrived", got)
	}
}

func TestAnAgentThatDoesNotStartIsShownWithItsLog(t *testing.T) {
	tr, err := trial.New(t.Context(), trial.Config{Wiring: lab.Routed, Nodes: []string{"node1"},
		Agent: os.Getenv(agentVariable), AgentArgs: []string{"--run-router=true"}})
	if err == nil {
		_ = tr.Close() // the test has failed already
		t.Fatal("a wrong command line went unnoticed")
	}
	for _, part := range []string{"node1", "exit status 2", "--run-router"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
}
