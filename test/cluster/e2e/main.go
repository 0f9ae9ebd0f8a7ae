// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command e2e tries podwall as it is installed, from its image and manifest, on
// real clusters of this machine: the upstream specs of NetworkPolicy, and what
// operators do to a cluster under traffic. It writes a report.
//
//	e2e run [flags]    run combinations and write the report; status 1 if anything failed
//	e2e up [flags]     start one cluster with podwall and keep it until interrupted
//	e2e list           print the combinations and the scenarios
//
// `make e2e` runs everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/podwall/podwall/test/cluster"
)

func main() {
	cluster.Enter()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

// settings are the command line.
type settings struct {
	root    string         // of the repository
	out     string         // where the report goes
	only    *regexp.Regexp // combinations
	focus   string         // specs, instead of those of the combination
	try     *regexp.Regexp // scenarios
	process bool           // agents as plain processes
}

func (s *settings) bin() string { return filepath.Join(s.root, "bin") }

// work is where logs and intermediate files go.
func (s *settings) work(name string) string { return filepath.Join(s.bin(), "e2e", name) }

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet("e2e", flag.ContinueOnError)
	f.StringVar(&s.root, "root", ".", "the repository, with what make has built in its bin directory")
	f.StringVar(&s.out, "out", "docs/reports", "directory for the report")
	only := f.String("only", "", "regular expression: which combinations; empty means all")
	f.StringVar(&s.focus, "specs", "", "regular expression: which specs, instead of those of each combination; - means none")
	try := f.String("scenarios", "", "regular expression: which scenarios; empty means all of each combination; - means none")
	f.BoolVar(&s.process, "process", false, "run agents as plain processes instead of installing the image")
	err := f.Parse(args)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(s.root)
	s.root = root
	var err1, err2 error
	s.only, err1 = regexp.Compile(*only)
	s.try, err2 = regexp.Compile(*try)
	return s, errors.Join(err, err1, err2)
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("use e2e run|up|list [flags]")
	}
	s, err := parse(args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case args[0] == "run":
		return s.run(ctx)
	case args[0] == "up":
		return s.up(ctx)
	case args[0] == "list":
		list()
		return nil
	}
	return fmt.Errorf("there is no command %q: use run, up or list", args[0])
}

func list() {
	for _, p := range plans() {
		fmt.Printf("%s: specs %s; scenarios", p.name, p.specs)
		for _, s := range scenarios() {
			if p.tries(s) {
				fmt.Printf(" %s", strings.ReplaceAll(s.name, " ", "-"))
			}
		}
		fmt.Println()
	}
}

// run does each chosen combination, and writes the report after each.
func (s *settings) run(ctx context.Context) error {
	report, err := newReport(s.bin())
	if err != nil {
		return err
	}
	report.ImageBytes = size(s.image())
	for _, p := range plans() {
		if !s.only.MatchString(p.name) || ctx.Err() != nil {
			continue
		}
		say := func(format string, args ...any) { fmt.Printf(p.name+": "+format+"\n", args...) }
		began := time.Now()
		c := &Combination{Name: p.name}
		report.Combinations = append(report.Combinations, c)
		if err := s.combine(ctx, p, c, say); err != nil {
			c.Error = err.Error()
			say("%v", err)
		}
		c.Seconds = time.Since(began).Seconds()
		passed, failed := c.count()
		say("%d specs passed, %d failed; %d of %d scenarios passed", passed, failed, c.scenariosPassed(), len(c.Scenarios))
		if err := report.write(s.out); err != nil {
			return err
		}
	}
	if n := report.failures(); n > 0 {
		return fmt.Errorf("%d failures, see %s", n, filepath.Join(s.out, "e2e.md"))
	}
	return ctx.Err()
}

// combine starts a cluster with podwall and tries on it what the plan says.
func (s *settings) combine(ctx context.Context, p plan, result *Combination, say func(string, ...any)) (err error) {
	w, err := s.start(ctx, p, result, say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := s.tryScenarios(ctx, w, result); err != nil {
		return err
	}
	if focus := s.specs(p); focus != "" {
		result.Specs, err = runSpecs(ctx, w.Cluster, s.bin(), s.work(p.file()), focus, say)
	}
	agents, costs := w.agents()
	result.Agents = agents
	return errors.Join(err, costs)
}

func (s *settings) specs(p plan) string {
	switch s.focus {
	case "":
		return p.specs
	case "-":
		return ""
	}
	return s.focus
}

// up is for people who want to look around.
func (s *settings) up(ctx context.Context) error {
	for _, p := range plans() {
		if !s.only.MatchString(p.name) {
			continue
		}
		say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
		w, err := s.start(ctx, p, &Combination{}, say)
		if err != nil {
			return err
		}
		pid := w.Nodes()[0].Pid()
		fmt.Printf("%s is up. kubectl:\n  nsenter --net=/proc/%d/fd/%d %s kubectl --kubeconfig %s get pods -A\n", p.name, os.Getpid(), w.FabricFD(), filepath.Join(s.bin(), "kube"), w.Kubeconfig())
		fmt.Printf("a shell on the first node:\n  nsenter -t %d -a bash\nctrl-c ends it.\n", pid)
		<-ctx.Done()
		return w.close()
	}
	return errors.New("no combination has such a name: see e2e list")
}

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}
