// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

type check struct {
	bedFlags
	streams         Streams
	backend, wiring string
	every           int
	observed        string
}

func newCheck(s Streams) *cobra.Command {
	c := &check{streams: s}
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Compare expected connectivity, as data, with what is true",
		Long: `check reads cases (schema npcase/v1, plain or gzip), asks a backend about every
step, and prints each cell that differs:

  LEAK   should be dropped, passed
  BLOCK  should pass, was dropped

The backend kernel applies the steps of a case to running agents as changes and
sends real packets. The backend program evaluates the compiled programs, and
oracle reads the policies by itself.

` + verdictStatusHelp,
		Example: `  podwall-lab check testdata/cases/recipes.jsonl testdata/cases/check*.jsonl
  podwall-lab check --backend program testdata/cases/*.jsonl*
  podwall-lab check --wiring bridge --every 20 -o observed.jsonl cases.jsonl.gz`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&c.backend, "backend", "kernel", "who is asked: `kernel|program|oracle`")
	f.StringVar(&c.wiring, "wiring", "routed", "how pods are wired, for the kernel: one `NAME` of "+wiringNames())
	f.IntVar(&c.every, "every", 1, "take every `N`-th case of each file only")
	f.StringVarP(&c.observed, "output", "o", "", "write what was observed to `FILE`, as JSON lines")
	return cmd
}

func (c *check) run(ctx context.Context, files []string) (err error) {
	if c.every < 1 {
		return fmt.Errorf("--every is %d, want 1 or more", c.every)
	}
	list := make([][]cases.Case, len(files))
	for i, file := range files {
		if list[i], err = readCases(file, c.every); err != nil {
			return err
		}
	}
	observed := io.Writer(nil)
	if c.observed != "" {
		f, err := os.Create(c.observed)
		if err != nil {
			return fmt.Errorf("opening the file for what was observed: %w", err)
		}
		defer f.Close() // every line was checked when it was written
		observed = f
	}
	backend, closing, err := c.open(ctx, slices.Concat(list...))
	if err != nil {
		return err
	}
	ok, err := c.files(ctx, files, list, backend, observed)
	if closeErr := closing(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err == nil && !ok {
		err = exit{statusDiffers}
	}
	return err
}

func readCases(file string, every int) ([]cases.Case, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening cases: %w", err)
	}
	defer f.Close()
	all, err := cases.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var list []cases.Case
	for i := 0; i < len(all); i += every {
		list = append(list, all[i])
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no cases in it", file)
	}
	return list, nil
}

// files checks file by file and prints a line for each.
func (c *check) files(ctx context.Context, files []string, list [][]cases.Case, b cases.Backend,
	observed io.Writer) (ok bool, err error) {
	ok = true
	for i, file := range files {
		start := time.Now()
		steps := 0
		for _, c := range list[i] {
			steps += len(c.Steps)
		}
		p := &progress{Backend: b, out: c.streams.Err, file: file, steps: steps, start: start, shown: start}
		sum, err := cases.Check(ctx, list[i], p, c.streams.Out, observed)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(c.streams.Out, "%s: %s, in %.1f s (%s)\n", file, sum.String(), time.Since(start).Seconds(),
			c.asked())
		ok = ok && sum.OK()
	}
	return ok, nil
}

func (c *check) asked() string {
	if c.backend == "kernel" {
		return "kernel, " + c.wiring + ", " + c.datapath
	}
	return c.backend
}

// open returns the backend and what ends it.
func (c *check) open(ctx context.Context, list []cases.Case) (cases.Backend, func() error, error) {
	nothing := func() error { return nil }
	switch c.backend {
	case "oracle":
		return cases.OracleBackend{}, nothing, nil
	case "program":
		return cases.NewProgramBackend(compileFor, func(p *program.Program, f program.Flow) bool {
			return program.Eval(p, f) == program.Accept
		}), nothing, nil
	case "kernel":
		return c.openKernel(ctx, list)
	}
	return nil, nil, fmt.Errorf("unknown backend %q, want kernel, program or oracle", c.backend)
}

func compileFor(snap *cluster.Snapshot, node string) *program.Program {
	return compile.Program(policy.Resolve(snap, node), compile.Options{})
}

func (c *check) openKernel(ctx context.Context, list []cases.Case) (cases.Backend, func() error, error) {
	wirings, err := parseWirings([]string{c.wiring})
	if err != nil {
		return nil, nil, err
	}
	if err := c.ready(wirings); err != nil {
		return nil, nil, err
	}
	var nodes []string
	used, pods := complete.Addresses{}, complete.Addresses{}
	for _, c := range list {
		for _, step := range c.Steps {
			nodes = append(nodes, step.Nodes()...)
			for i := range step.Pods {
				if p := &step.Pods[i]; !p.HostNetwork {
					used.Add(p.Addrs()...)
					pods.Add(p.Addrs()...)
				}
			}
			for _, e := range step.Externals {
				used.Add(e.Addrs()...)
			}
		}
	}
	t, err := c.start(ctx, wirings[0], sortedUnique(nodes), used.List(), pods.List())
	if err != nil {
		return nil, nil, err
	}
	return trial.KernelBackend{Trial: t}, t.Close, nil
}

func sortedUnique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// progress says from time to time how far a run is.
type progress struct {
	cases.Backend
	out          io.Writer
	file         string
	done, steps  int
	start, shown time.Time
}

// Judge implements cases.Backend.
func (p *progress) Judge(ctx context.Context, step *cases.Step) (cases.Observed, error) {
	o, err := p.Backend.Judge(ctx, step)
	p.done++
	if now := time.Now(); now.Sub(p.shown) > 2*time.Second {
		p.shown = now
		fmt.Fprintf(p.out, "%s: %d of %d steps, %.1f a second\n", p.file, p.done, p.steps,
			float64(p.done)/now.Sub(p.start).Seconds())
	}
	return o, err
}
