// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/gencase"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

// subject is a pod's address that denies in a direction, or would.
type subject struct {
	addr      netip.Addr
	direction string
	verdict   denied.Verdict
}

// Every record of packets that the kernel drops names exactly the policies that the oracle names, and
// every pod that denies something has one.
func TestRecordsOfTheKernelNameThePoliciesOfTheOracle(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.String(), func(t *testing.T) {
			tr, err := trial.New(t.Context(), trial.Config{Wiring: v.wiring, Nodes: []string{"node1", "node2"},
				Agent: os.Getenv(entry.AgentVariable), AgentArgs: []string{"--datapath=" + v.datapath, "--denied-flows-group=7",
					"--policy-audit=allow-namespaces"}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
			}()
			checked := map[denied.Verdict]int{}
			for _, step := range recorded(t) {
				checkRecords(t, tr, step, checked)
				if t.Failed() {
					return
				}
			}
			t.Logf("%s: records %v", v, checked)
			if len(checked) != len(denied.Verdicts()) {
				t.Error("no record of a kind was made")
			}
		})
	}
}

// recorded are the steps: random ones, and in a long run many and those of the case files; each also with
// all of its policies in audit mode.
func recorded(t *testing.T) (steps []*cases.Step) {
	t.Helper()
	many := 1
	if soak.Long() {
		many = 20
		for _, name := range []string{"recipes.jsonl", "checklist.jsonl", "cyclonus.jsonl.gz"} {
			steps = append(steps, caseFile(t, "../../testdata/cases/"+name)...)
		}
	}
	for seed := range uint64(many) {
		steps = append(steps, gencase.Case(readSettings(t).seed+seed, states).Steps...)
	}
	for _, s := range slices.Clone(steps) {
		steps = append(steps, inAudit(s), namespacesInAudit(s))
	}
	return steps
}

// inAudit is a step with all of its policies in audit mode.
func inAudit(s *cases.Step) *cases.Step {
	a := *s
	a.ID += "-audit"
	a.Policies, a.Probes = slices.Clone(s.Policies), slices.Clone(s.Probes)
	for i := range a.Policies {
		a.Policies[i] = *s.Policies[i].DeepCopy()
		a.Policies[i].Annotations = map[string]string{cluster.ModeAnnotation: cluster.ModeAudit}
	}
	return &a
}

// namespacesInAudit is a step with every second namespace in audit mode, and a mode of their own for some
// policies.
func namespacesInAudit(s *cases.Step) *cases.Step {
	a := *s
	a.ID += "-namespaces"
	a.Namespaces, a.Policies, a.Probes = slices.Clone(s.Namespaces), slices.Clone(s.Policies), slices.Clone(s.Probes)
	mode := func(m string) map[string]string { return map[string]string{cluster.ModeAnnotation: m} }
	for i := range a.Namespaces {
		if i%2 == 0 {
			a.Namespaces[i].Annotations = mode(cluster.ModeAudit)
		}
	}
	for i := range a.Policies {
		if i%4 == 3 {
			a.Policies[i] = *s.Policies[i].DeepCopy()
			a.Policies[i].Annotations = mode([]string{cluster.ModeEnforce, "Audit"}[i/4%2])
		}
	}
	return &a
}

func caseFile(t *testing.T, name string) (steps []*cases.Step) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if text, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	list, err := cases.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		steps = append(steps, list[i].Steps...)
	}
	return steps
}

// checkRecords probes a step, holds the records against the oracle, and counts them.
func checkRecords(t *testing.T, tr *trial.Trial, step *cases.Step, checked map[denied.Verdict]int) {
	t.Helper()
	began := time.Now()
	r := &run{}
	answer := expect(t, step)
	compare(t, &r.tally, step, answer, r.judge(t, trial.KernelBackend{Trial: tr}, step))
	snap := step.Snapshot()
	missing := denying(t, step, snap, answer)
	var list []denied.Record
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var err error
		if list, err = tr.Denied(t.Context()); err != nil {
			t.Fatal(err)
		}
		list = slices.DeleteFunc(list, func(r denied.Record) bool { return r.Last.Before(began) })
		for i := range list {
			delete(missing, subject{list[i].Subject().Address, list[i].Direction, list[i].Verdict})
		}
		if len(missing) == 0 || time.Now().After(end) {
			break
		}
	}
	for s := range missing {
		t.Errorf("%s (%s): %s of %s has no record: %s", step.ID, step.Description, s.direction, s.addr, s.verdict)
	}
	for i := range list {
		checked[list[i].Verdict]++
		if want, got := isolating(snap, &list[i]), list[i].Policies; !slices.Equal(got, want) {
			t.Errorf("%s (%s): %+v names %v, the oracle %v", step.ID, step.Description, list[i], got, want)
		}
	}
}

// denying are the pods that deny a probe of the step, or would by policies in audit mode. What egress denies
// never comes to ingress.
func denying(t *testing.T, step *cases.Step, snap *cluster.Snapshot,
	answer func(probe, src, dst int) oracle.Answer) map[subject]bool {
	t.Helper()
	ends, err := step.Ends()
	if err != nil {
		t.Fatal(err)
	}
	found := map[subject]bool{}
	for i, p := range step.Probes {
		for src, row := range p.Expected {
			for dst := range len(row) {
				if row[dst] == cases.NotObserved {
					continue
				}
				now := answer(i, src, dst)
				protocol, _ := cluster.ParseProtocol(p.Protocol)
				audit := oracle.Audit(snap, oracle.Flow{Protocol: protocol, Port: p.Port, Src: place(ends[src]),
					Dst: place(ends[dst])})
				if oracle.WouldDeny(now.Egress, audit.Egress) {
					found[subject{ends[src].Addr, "egress", denied.WouldDeny}] = true
				}
				switch {
				case !now.Egress.Allowed():
					found[subject{ends[src].Addr, "egress", denied.Denied}] = true
				case !now.Ingress.Allowed():
					found[subject{ends[dst].Addr, "ingress", denied.Denied}] = true
				case oracle.WouldDeny(now.Ingress, audit.Ingress):
					found[subject{ends[dst].Addr, "ingress", denied.WouldDeny}] = true
				}
			}
		}
	}
	return found
}

// isolating are the policies that the oracle names for the side that denied.
func isolating(snap *cluster.Snapshot, r *denied.Record) []cluster.Key {
	place := func(a netip.Addr) oracle.Endpoint {
		for _, p := range snap.Pods {
			if p.Networked() && slices.Contains(p.IPs, a) {
				return oracle.Endpoint{Pod: p.Key, Addr: a}
			}
		}
		return oracle.Addr(a)
	}
	var protocol cluster.Protocol
	for _, p := range cluster.Protocols {
		if fmt.Sprint(p) == map[string]string{"tcp": "TCP", "udp": "UDP", "sctp": "SCTP"}[r.Protocol] {
			protocol = p
		}
	}
	judge := oracle.Judge
	if r.Verdict == denied.WouldDeny {
		judge = oracle.Audit
	}
	a := judge(snap, oracle.Flow{Protocol: protocol, Port: r.Port, Src: place(r.Source.Address),
		Dst: place(r.Destination.Address)})
	if r.Direction == "egress" {
		return a.Egress.Isolating
	}
	return a.Ingress.Isolating
}
