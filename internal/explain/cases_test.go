// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

// whole is up to how many flows of a file all are explained.
const whole = 2000

// stride is of how many further flows one is explained: all take a minute with the
// race detector.
func stride() int { return soak.Times(5, 1) }

// Every explanation has the verdict that the case files expect, and every denied flow
// names the policies that the oracle names.
func TestExplanationsOfTheCaseFiles(t *testing.T) {
	files, err := filepath.Glob("../../testdata/cases/*.jsonl*")
	if err != nil || len(files) < 7 {
		t.Fatalf("found %d case files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			list, err := cases.Read(f)
			if err != nil {
				t.Fatal(err)
			}
			var n tally
			for _, c := range list {
				for _, s := range c.Steps {
					if len(s.ClusterPolicies) == 0 {
						n.step(t, s)
					}
				}
			}
			if t.Logf("%d flows explained, %d denied", n.asked, n.denied); n.asked == 0 {
				t.Error("nothing was asked")
			}
		})
	}
}

// tally counts flows.
type tally struct{ seen, asked, denied int }

func (n *tally) step(t *testing.T, s *cases.Step) {
	t.Helper()
	ends, err := s.Ends()
	if err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot()
	c := explain.New(snap)
	for _, p := range s.Probes {
		protocol, _ := cluster.ParseProtocol(p.Protocol)
		for i, src := range ends {
			for j, dst := range ends {
				want := p.Expected[i][j]
				if n.seen++; n.seen > whole && n.seen%stride() != 0 || src.Pod == nil && dst.Pod == nil || want != '0' && want != '1' ||
					!src.Addr.IsValid() || !dst.Addr.IsValid() || src.Addr.Is4() != dst.Addr.Is4() {
					continue
				}
				n.asked++
				f := explain.Flow{Src: endOf(src), Dst: endOf(dst), Protocol: inet.Protocol(protocol), Port: p.Port}
				e, err := c.Explain(f)
				if err != nil {
					t.Fatalf("%s: %s to %s: %v", s.ID, src.Name, dst.Name, err)
				}
				if e.Allowed != (want == '1') {
					t.Fatalf("%s: %s to %s %s: want %c\n%s", s.ID, src.Name, dst.Name, p.String(), want, e)
				}
				if e.Allowed {
					continue
				}
				n.denied++
				reasons := oracle.Judge(snap, oracle.Flow{Protocol: protocol, Port: p.Port, Src: asked(src), Dst: asked(dst)})
				if !slices.Equal(e.Egress.Isolating, reasons.Egress.Isolating) ||
					!slices.Equal(e.Ingress.Isolating, reasons.Ingress.Isolating) {
					t.Fatalf("%s: %s to %s %s: the oracle says %s\n%s", s.ID, src.Name, dst.Name, p.String(), reasons, e)
				}
			}
		}
	}
}

func endOf(e cases.End) explain.End {
	if e.Pod == nil {
		return explain.End{Addr: e.Addr}
	}
	return explain.End{Pod: e.Pod.Key(), Addr: e.Addr}
}

func asked(e cases.End) oracle.Endpoint {
	if e.Pod == nil {
		return oracle.Outside(e.Addr)
	}
	return oracle.Endpoint{Pod: e.Pod.Key(), Addr: e.Addr}
}
