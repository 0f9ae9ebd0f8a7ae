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

// subject is a pod's address that denies in a direction.
type subject struct {
	addr      netip.Addr
	direction string
}

// Every record of packets that the kernel drops names exactly the policies that the oracle names, and
// every pod that denies something has one.
func TestRecordsOfTheKernelNameThePoliciesOfTheOracle(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.String(), func(t *testing.T) {
			tr, err := trial.New(t.Context(), trial.Config{Wiring: v.wiring, Nodes: []string{"node1", "node2"},
				Agent: os.Getenv(entry.AgentVariable), AgentArgs: []string{"--datapath=" + v.datapath, "--denied-flows-group=7"}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
			}()
			checked := 0
			for _, step := range recorded(t) {
				checked += checkRecords(t, tr, step)
				if t.Failed() {
					return
				}
			}
			t.Logf("%s: %d records", v, checked)
			if checked == 0 {
				t.Error("no record was made")
			}
		})
	}
}

// recorded are the steps: random ones, and in a long run many and those of the case files.
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
	return steps
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
		for j := range list[i].Steps {
			steps = append(steps, list[i].Steps[j])
		}
	}
	return steps
}

// checkRecords probes a step and holds the records against the oracle. It returns how many there were.
func checkRecords(t *testing.T, tr *trial.Trial, step *cases.Step) (checked int) {
	t.Helper()
	began := time.Now()
	r := &run{}
	answer := expect(t, step)
	compare(t, &r.tally, step, answer, r.judge(t, trial.KernelBackend{Trial: tr}, step))
	missing := denying(t, step, answer)
	var list []denied.Record
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var err error
		if list, err = tr.Denied(t.Context()); err != nil {
			t.Fatal(err)
		}
		list = slices.DeleteFunc(list, func(r denied.Record) bool { return r.Last.Before(began) })
		for i := range list {
			delete(missing, subject{list[i].Subject().Address, list[i].Direction})
		}
		if len(missing) == 0 || time.Now().After(end) {
			break
		}
	}
	for s := range missing {
		t.Errorf("%s (%s): %s of %s denies and has no record", step.ID, step.Description, s.direction, s.addr)
	}
	snap := step.Snapshot()
	for i := range list {
		if want, got := isolating(snap, &list[i]), list[i].Policies; !slices.Equal(got, want) {
			t.Errorf("%s (%s): %+v names %v, the oracle %v", step.ID, step.Description, list[i], got, want)
		}
	}
	return len(list)
}

// denying are the pods that deny a probe of the step. What egress denies never comes to ingress.
func denying(t *testing.T, step *cases.Step, answer func(probe, src, dst int) oracle.Answer) map[subject]bool {
	t.Helper()
	ends, err := step.Ends()
	if err != nil {
		t.Fatal(err)
	}
	found := map[subject]bool{}
	for i, p := range step.Probes {
		for src, row := range p.Expected {
			for dst := range len(row) {
				if row[dst] != '0' {
					continue
				}
				if a := answer(i, src, dst); !a.Egress.Allowed() {
					found[subject{ends[src].Addr, "egress"}] = true
				} else {
					found[subject{ends[dst].Addr, "ingress"}] = true
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
	a := oracle.Judge(snap, oracle.Flow{Protocol: protocol, Port: r.Port, Src: place(r.Source.Address),
		Dst: place(r.Destination.Address)})
	if r.Direction == "egress" {
		return a.Egress.Isolating
	}
	return a.Ingress.Isolating
}
