// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	testentry "github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/netpol/program"
)

// patience bounds the wait for something that must happen, on a busy or emulated machine.
const patience = time.Minute

func TestMain(m *testing.M) { testentry.Try(m) }

// inOwnNamespace runs f in a process and a network namespace of its own.
func inOwnNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	apart.Run(t, f)
}

// open opens a datapath with a stopped clock: most pods of the tests have no route, which becomes a problem
// after a while, and on a slow machine a test may last longer than that.
func open(t *testing.T, o Options) *Datapath {
	t.Helper()
	d, err := Open(o, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	d.now = func() time.Time { return start }
	t.Cleanup(func() { _ = d.Close() }) // may be closed already
	return d
}

func apply(t *testing.T, d *Datapath, p *program.Program) Report {
	t.Helper()
	r, err := d.Apply(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// healthy applies and wants no problem.
func healthy(t *testing.T, d *Datapath, p *program.Program) Report {
	t.Helper()
	r := apply(t, d, p)
	for _, problem := range r.Problems {
		t.Errorf("problem: %+v", problem)
	}
	return r
}

// brief is a report without the table.
func brief(r Report) string {
	r.Table = nil
	return fmt.Sprintf("%+v", r)
}

// verify does what the agent does once per period.
func verify(t *testing.T, d *Datapath) {
	t.Helper()
	if err := d.Verify(); err != nil {
		t.Fatal(err)
	}
}

// isolated is a program with one pod that the given peers reach.
func isolated(peers ...string) *program.Program {
	set := &program.Set{Name: "pods4-peers", Kind: inet.Addrs, Family: inet.IPv4}
	for _, a := range peers {
		set.Elements = set.Elements.With(inet.Element{Addr: netip.MustParseAddr(a)})
	}
	return &program.Program{
		Pods: []program.Pod{{Addr: netip.MustParseAddr("10.244.1.5"), Name: "shop/web", Ingress: "ingress4-web"}},
		Chains: []*program.Chain{{Name: "ingress4-web", Direction: program.Ingress, Family: inet.IPv4,
			Rules: []program.Rule{{PeerSet: set.Name}}}},
		Sets: []*program.Set{set},
	}
}

// run runs a program in this process' network namespace.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func nftRun(t *testing.T, commands ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, strings.Join(commands, "\n"))
	}
}

// listing is our table as nft shows it, without counts.
func listing(t *testing.T) string {
	t.Helper()
	return run(t, "nft", "--stateless", "list", "table", "inet", "podwall")
}

// woken waits until the datapath reports a change.
func woken(t *testing.T, d *Datapath) {
	t.Helper()
	select {
	case <-d.Changed():
	case <-time.After(patience):
		t.Fatalf("a change was not noticed in %s", patience)
	}
}
