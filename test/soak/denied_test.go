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
	steps := recorded(t)
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
			c := &comparison{trial: tr, checked: map[denied.Verdict]int{}}
			c.all(t, v, steps)
			if readSettings(t).steps.String() == "" && len(c.checked) != len(denied.Verdicts()) {
				t.Error("no record of a kind was made")
			}
		})
	}
}

// comparison holds the records of a variant against the oracle.
type comparison struct {
	run
	trial   *trial.Trial
	checked map[denied.Verdict]int
	// differences are counted; the first ones are reported.
	differences int
}

const (
	// maxDifferences is how many differences of a variant are told one by one.
	maxDifferences = 20
	// tries is how often a step is brought to the agents until they enforce it. One waits two minutes for them,
	// which a machine with much else to do may not give them.
	tries = 3
	// sayEach is the time between two lines about the progress.
	sayEach = 30 * time.Second
	// recordTime is how long is waited for the records of a step.
	recordTime = 2 * time.Minute
)

// all compares every step, whatever differs, and says how far it is. It leaves only agents that do not enforce a
// step at all.
func (c *comparison) all(t *testing.T, v variant, steps []*cases.Step) {
	t.Helper()
	began, said := time.Now(), time.Now()
	say := func(done int) {
		t.Logf("%s: %d of %d steps, records %v, %d differences, %d steps asked again; in %.1f s", v, done, len(steps),
			c.checked, c.differences, c.again, time.Since(began).Seconds())
	}
	for i, step := range steps {
		if !c.check(t, step) {
			say(i)
			return
		}
		if time.Since(said) >= sayEach && i+1 < len(steps) {
			said = time.Now()
			say(i + 1)
		}
	}
	say(len(steps))
}

// differs counts a difference, and reports it if there are few.
func (c *comparison) differs(t *testing.T, step *cases.Step, format string, args ...any) {
	t.Helper()
	if c.differences++; c.differences > maxDifferences {
		t.Fail()
		return
	}
	t.Errorf("%s (%s): %s", step.ID, step.Description, fmt.Sprintf(format, args...))
}

// recorded are the steps: random ones, and in a long run many and those of the case files; each also with
// all of its policies, and with some of its namespaces, in audit mode. The filter of the settings takes some.
func recorded(t *testing.T) (steps []*cases.Step) {
	t.Helper()
	many, set := 1, readSettings(t)
	if soak.Long() {
		many = 20
		for _, name := range []string{"recipes.jsonl", "checklist.jsonl", "cyclonus.jsonl.gz"} {
			steps = append(steps, caseFile(t, "../../testdata/cases/"+name)...)
		}
	}
	for seed := range uint64(many) {
		steps = append(steps, gencase.Case(set.seed+seed, states).Steps...)
	}
	for _, s := range slices.Clone(steps) {
		steps = append(steps, inAudit(s), namespacesInAudit(s))
	}
	steps = slices.DeleteFunc(steps, func(s *cases.Step) bool { return !set.steps.MatchString(s.ID) })
	t.Logf("%d steps, seeds %d to %d", len(steps), set.seed, set.seed+uint64(many)-1)
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

// check probes a step, holds the records against the oracle, and counts them. It returns false if the kernel
// gives no verdict.
func (c *comparison) check(t *testing.T, step *cases.Step) bool {
	t.Helper()
	began := time.Now()
	answer := expect(t, step)
	o, err := c.verdicts(t, step)
	if err != nil {
		c.differs(t, step, "%v", err)
	}
	if len(o.Probes) == 0 {
		return false
	}
	if text := difference(t, &c.tally, step, answer, o); text != "" {
		c.differs(t, step, "%s", text)
	}
	snap := step.Snapshot()
	missing := denying(t, step, snap, answer)
	list, said, err := c.records(t, began, missing)
	if err != nil {
		c.differs(t, step, "its records cannot be read: %v", err)
	}
	for s := range missing {
		c.differs(t, step, "%s of %s has no record: %s; the nodes say %+v", s.direction, s.addr, s.verdict, said)
	}
	for i := range list {
		c.checked[list[i].Verdict]++
		if want, got := isolating(snap, &list[i]), list[i].Policies; !slices.Equal(got, want) {
			c.differs(t, step, "%+v names %v, the oracle %v", list[i], got, want)
		}
	}
	return true
}

// verdicts asks the kernel about a step, more than once if the agents do not enforce it in time.
func (c *comparison) verdicts(t *testing.T, step *cases.Step) (o cases.Observed, err error) {
	t.Helper()
	for try := 1; try <= tries && len(o.Probes) == 0; try++ {
		if try > 1 {
			t.Logf("%s: no verdict: %v", step.ID, err)
			c.again++
		}
		o, err = c.ask(t, trial.KernelBackend{Trial: c.trial}, step)
	}
	return o, err
}

// records returns the records since a time as soon as none is missing, and what the nodes say of all of theirs.
// It deletes from missing what has one.
func (c *comparison) records(t *testing.T, began time.Time, missing map[subject]bool) (
	list []denied.Record, said []denied.Summary, err error) {
	t.Helper()
	err = await(missing, recordTime, func() error {
		var all []denied.Record
		if all, said, err = c.trial.Denied(t.Context()); err == nil {
			list = slices.DeleteFunc(all, func(r denied.Record) bool { return r.Last.Before(began) })
		}
		for i := range list {
			delete(missing, subject{list[i].Subject().Address, list[i].Direction, list[i].Verdict})
		}
		return err
	})
	return list, said, err
}

// await looks until nothing is missing, and returns why the last look failed. That one begins after the limit:
// on a busy machine a look may take as long as the limit, and have read before what is missing was there.
func await(missing map[subject]bool, limit time.Duration, look func() error) error {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		last := time.Since(began) >= limit
		if err := look(); last || err == nil && len(missing) == 0 {
			return err
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
