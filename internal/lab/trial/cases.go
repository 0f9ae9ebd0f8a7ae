// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/packet"
)

// KernelBackend answers cases with real packets. Each step is a change to the
// running agents; the bed is kept from step to step and from case to case.
type KernelBackend struct{ Trial *Trial }

var _ cases.Backend = KernelBackend{}

// maxProblems bounds how many problems of a step are told.
const maxProblems = 5

// Judge implements cases.Backend. Problems that do not change a verdict, as an
// answer that got lost, are an error beside the result.
func (k KernelBackend) Judge(ctx context.Context, step *cases.Step) (cases.Observed, error) {
	o := cases.Observed{ID: step.ID}
	if len(step.ClusterPolicies) > 0 {
		return o, cases.ErrClusterPolicies
	}
	state, err := stateOf(step)
	if err != nil {
		return o, err
	}
	if err := k.Trial.Apply(ctx, state); err != nil {
		return o, err
	}
	ends, err := step.Ends()
	if err != nil {
		return o, err
	}
	asked := k.questions(step, ends)
	answers, err := k.Trial.Probe(ctx, asked.list)
	if err != nil {
		return o, err
	}
	return asked.observed(step, len(ends), answers), problems(asked.list, answers)
}

// stateOf returns the wires and manifests of a step. Finished pods have none,
// and those of the node's network have the node's.
func stateOf(step *cases.Step) (s State, err error) {
	if s.Files, err = step.Manifests(); err != nil {
		return s, err
	}
	for i := range step.Pods {
		p := &step.Pods[i]
		if p.HostNetwork || finished(p) || !p.IP.IsValid() {
			continue
		}
		s.Pods = append(s.Pods, lab.PodSpec{Key: p.Key(), Node: p.Node, IPs: p.Addrs()})
	}
	for _, e := range step.Externals {
		s.Hosts = append(s.Hosts, Host{Name: e.Name, Addrs: e.Addrs()})
	}
	return s, nil
}

func finished(p *cases.Pod) bool { return p.Phase == "Succeeded" || p.Phase == "Failed" }

// asked are the questions of a step and the cell that each stands for.
type asked struct {
	list  []Question
	cells []cell
}

type cell struct{ probe, src, dst int }

func (k KernelBackend) questions(step *cases.Step, ends []cases.End) asked {
	var a asked
	for i := range step.Probes {
		p := &step.Probes[i]
		proto, _ := cluster.ParseProtocol(p.Protocol) // checked by cases.Read
		for src, from := range ends {
			for dst, to := range ends {
				if from.Pod == nil && to.Pod == nil {
					continue // nobody's business
				}
				q := Question{From: k.place(from), To: k.place(to), Src: from.Addr, Dst: to.Addr,
					Proto: packet.Protocol(proto), Port: p.Port}
				if q.From == "" || q.To == "" {
					continue
				}
				a.list, a.cells = append(a.list, q), append(a.cells, cell{i, src, dst})
			}
		}
	}
	return a
}

// place returns the name of the bed's endpoint, or nothing if there is none.
func (k KernelBackend) place(e cases.End) string {
	switch {
	case e.Pod == nil:
		return e.Name
	case finished(e.Pod):
		return ""
	case e.Pod.HostNetwork:
		if n := k.Trial.bed.Node(e.Pod.Node); n != nil && address(n, e.Addr.Is4()) == e.Addr {
			return n.Name
		}
		return ""
	}
	return e.Name
}

func (a asked) observed(step *cases.Step, n int, answers []Answer) cases.Observed {
	grid := make([][][]byte, len(step.Probes))
	for i := range grid {
		grid[i] = make([][]byte, n)
		for j := range grid[i] {
			grid[i][j] = bytes.Repeat([]byte{cases.NotObserved}, n)
		}
	}
	for i, c := range a.cells {
		grid[c.probe][c.src][c.dst] = answers[i].Verdict.String()[0]
	}
	o := cases.Observed{ID: step.ID}
	for i := range step.Probes {
		p := cases.ObservedProbe{Port: step.Probes[i].Port, Protocol: step.Probes[i].Protocol}
		for _, row := range grid[i] {
			p.Observed = append(p.Observed, string(row))
		}
		o.Probes = append(o.Probes, p)
	}
	return o
}

func problems(list []Question, answers []Answer) error {
	var errs []error
	count := 0
	for i, a := range answers {
		if a.Problem == "" {
			continue
		}
		if count++; count <= maxProblems {
			errs = append(errs, fmt.Errorf("%s: %s", list[i], a.Problem))
		}
	}
	if count > maxProblems {
		errs = append(errs, fmt.Errorf("and %d more", count-maxProblems))
	}
	return errors.Join(errs...)
}
