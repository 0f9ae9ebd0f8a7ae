// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"strings"
	"testing"

	"github.com/podwall/podwall/examples"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/trial"
)

// ideal is what the examples must look like if every row of the table is true:
// everything open before, and under the policy as the rows claim.
func ideal(t *testing.T) []exampleView {
	t.Helper()
	base, err := examples.Files.ReadFile("demo/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stage, err := newStage(base)
	if err != nil {
		t.Fatal(err)
	}
	var shown []exampleView
	for _, e := range seedExamples() {
		x := exampleView{example: e, before: blank(stage.ends), after: blank(stage.ends)}
		for f := range x.after.answers {
			x.before.answers[f] = trial.Answer{Verdict: trial.Allowed, Packets: 1}
			x.after.answers[f] = trial.Answer{Verdict: claimed(x.after, e.Number, f), Packets: 1}
		}
		shown = append(shown, x)
	}
	return shown
}

// blank is a view with every question and no answer.
func blank(ends []end) *view {
	v := &view{ends: ends, ports: demoPorts(), answers: map[flow]trial.Answer{}, scope: all(ends)}
	for p := range v.ports {
		for _, v6 := range []bool{false, true} {
			for src := range ends {
				for dst := range ends {
					f := flow{v6, p, src, dst}
					if _, ok := v.question(f); ok {
						v.flows, v.answers[f] = append(v.flows, f), trial.Answer{}
					}
				}
			}
		}
	}
	return v
}

// claimed is what the rows say about a flow; what no row speaks about is open.
func claimed(v *view, number int, f flow) trial.Verdict {
	for _, r := range seedRows() {
		if c := r.claims[number]; c != nil {
			if asked, want := c(v.ends[f.src], v.ends[f.dst], v.ports[f.port], f.v6); asked && !want {
				return trial.Denied
			}
		}
	}
	return trial.Allowed
}

func results(shown []exampleView) string {
	var s strings.Builder
	for _, r := range seedRows() {
		s.WriteString(r.judge("routed", shown).Result[:1])
	}
	return s.String()
}

func TestAWorldAsClaimedPassesEveryRow(t *testing.T) {
	if got := results(ideal(t)); got != "PPPPPPP" {
		t.Errorf("results %s, want all P", got)
	}
}

func TestEveryRowFailsWhenItsClaimIsNotTrue(t *testing.T) {
	tests := []struct {
		name     string
		example  int
		src, dst string
		port     string
		before   bool
		verdict  trial.Verdict
		want     string // by row, 1 to 6 and the one beside
	}{
		{"another namespace on another node gets in", 1, "nsb/b1", "nsa/a3", "udp:53", false, trial.Allowed, "FPPPPPP"},
		{"another namespace on the same node gets in", 1, "nsb/b1", "nsa/a1", "tcp:80", false, trial.Allowed, "FPPPPFP"},
		{"the same namespace is cut", 1, "nsa/a1", "nsa/a3", "tcp:80", false, trial.Denied, "FPPPPPP"},
		{"a pod of nsa gets in where nobody may", 2, "nsa/a1", "nsa/a2", "tcp:80", false, trial.Allowed, "PFPPPFP"},
		{"B is cut on the right port", 3, "nsb/b1", "nsa/a3", "tcp:6379", false, trial.Denied, "PPFPFPP"},
		{"B gets in on another port", 3, "nsb/b1", "nsa/a3", "tcp:80", false, trial.Allowed, "PPPPFPP"},
		{"another host outside is reached", 4, "nsa/a1", "out", "tcp:5978", false, trial.Allowed, "PPPFPPP"},
		{"a pod of the same node is reached", 4, "nsa/a1", "default/d1", "tcp:5978", false, trial.Allowed, "PPPPPFP"},
		{"default is open to a pod of the same node", 5, "nsa/a1", "default/d1", "tcp:80", false, trial.Allowed, "PPPPPFF"},
		{"it was never open", 2, "nsb/b2", "nsa/a1", "tcp:80", true, trial.Denied, "PFPPPPP"},
		{"nothing is known", 5, "out", "default/d1", "tcp:80", false, trial.Unknown, "PPPPPPF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shown := ideal(t)
			v := shown[tt.example-1].after
			if tt.before {
				v = shown[tt.example-1].before
			}
			f := find(t, v, tt.src, tt.dst, tt.port)
			answer := trial.Answer{Verdict: tt.verdict, Packets: 1}
			if tt.verdict == trial.Unknown {
				answer.Problem = "not seen"
			}
			v.answers[f] = answer
			if got := results(shown); got != tt.want {
				t.Errorf("results %s, want %s", got, tt.want)
			}
		})
	}
}

func find(t *testing.T, v *view, src, dst, port string) flow {
	t.Helper()
	for _, f := range v.flows {
		if !f.v6 && v.ends[f.src].name == src && v.ends[f.dst].name == dst && v.ports[f.port].String() == port {
			return f
		}
	}
	t.Fatalf("no flow %s → %s %s", src, dst, port)
	return flow{}
}

func TestARowWithoutPacketsFails(t *testing.T) {
	for _, r := range seedRows() {
		if res := r.judge("routed", nil); res.Result != "Fail" {
			t.Errorf("row %d passes without a measurement", r.Number)
		}
	}
}

func TestTheDemoIsNotWiderThanATerminal(t *testing.T) {
	var out strings.Builder
	p := printer{Streams: Streams{Out: &out, Err: &out}}
	base, err := examples.Files.ReadFile("demo/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stage, err := newStage(base)
	if err != nil {
		t.Fatal(err)
	}
	p.cast(stage)
	r := &demoReport{}
	for _, w := range []lab.Wiring{lab.Routed, lab.Bridge, lab.CNIBridge, lab.CNIPtp} {
		shown := ideal(t)
		for i := range shown {
			for f, a := range shown[i].after.answers {
				a.Packets = 10 // more than there are
				if w == lab.CNIBridge {
					a.Verdict = trial.Allowed // rows fail
				}
				shown[i].after.answers[f] = a
			}
			p.example(shown[i], r.view(shown[i].Number))
		}
		r.add(wiringReport{Wiring: string(w), shown: shown,
			totals: trial.Totals{Sent: 1_000_000, Arrived: 500_000, Dropped: 500_000}})
	}
	r.finish()
	if err := p.summary(r); err != nil {
		t.Fatal(err)
	}
	notWider(t, "demo", out.String())
	for _, part := range []string{"after: 18 changed", "the same verdicts", "Not all pass",
		"kube-router Fail routed Pass (", "cni-bridge: example 2: LEAK"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the demo does not say %q:\n%s", part, &out)
		}
	}
}
