// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command e2e tries podwall as it is installed, from its image and manifest, on
// real clusters of this machine: the upstream specs of NetworkPolicy, and what
// operators do to a cluster under traffic. It writes a report.
//
//	e2e run [flags]    run combinations and write the report; status 1 if anything failed
//	e2e up [flags]     start one cluster with podwall and keep it until interrupted
//	e2e merge DIR      add the report in a directory to that of -out
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
	args    []string       // what follows the flags
	missing bool           // only what has not passed yet
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
	f.StringVar(&s.focus, "specs", "", "regular expression: which specs, instead of those of each combination; - "+
		"means none")
	try := f.String("scenarios", "", "regular expression: which scenarios; empty means all of each combination; - "+
		"means none")
	f.BoolVar(&s.missing, "missing", false, "leave out what has passed in the report, of whatever image")
	f.BoolVar(&s.process, "process", false, "run agents as plain processes instead of installing the image")
	err := f.Parse(args)
	if err != nil {
		return nil, err
	}
	s.args = f.Args()
	root, err := filepath.Abs(s.root)
	s.root = root
	var err1, err2 error
	s.only, err1 = regexp.Compile(*only)
	s.try, err2 = regexp.Compile(*try)
	return s, errors.Join(err, err1, err2)
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("use e2e run|up|merge|list [flags]")
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
	case args[0] == "merge" && len(s.args) == 1:
		return mergeReports(s.out, s.args[0])
	case args[0] == "list":
		list()
		return nil
	}
	return fmt.Errorf("there is no command %q: use run, up, merge or list", args[0])
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

var errNone = errors.New("no combination has such a name: see e2e list")

// chosen are the combinations that the command line names.
func (s *settings) chosen() (list []plan) {
	for _, p := range plans() {
		if s.only.MatchString(p.name) {
			list = append(list, p)
		}
	}
	return list
}

// run does each chosen combination. It writes the report whenever something has
// ended, so that what was found is there when a run is cut short.
func (s *settings) run(ctx context.Context) error {
	plans := s.chosen()
	if len(plans) == 0 {
		return errNone
	}
	if _, err := readReport(s.out); err != nil {
		return err // before anything is tried in vain
	}
	programs, err := versions(s.bin())
	if err != nil {
		return err
	}
	failures := 0
	for _, p := range plans {
		if ctx.Err() != nil {
			break
		}
		n, err := s.runOne(ctx, p, programs)
		if err != nil {
			return err
		}
		failures += n
	}
	if failures > 0 {
		return fmt.Errorf("%d failures, see %s", failures, filepath.Join(s.out, "e2e.md"))
	}
	return ctx.Err()
}

// runOne does one combination and returns how much of it failed. Its error is
// that nothing can be reported.
func (s *settings) runOne(ctx context.Context, p plan, programs []string) (failures int, err error) {
	run, err := s.newRun(p.name)
	if err != nil {
		return 0, err
	}
	f := &found{run: run}
	passed := passedOf(nil)
	if s.missing {
		r, err := readReport(s.out)
		if err != nil {
			return 0, err
		}
		passed = passedOf(r.combination(p.name))
	}
	save := func() error {
		return f.save(s.out, func(r *Report) { r.Programs, r.ImageBytes = programs, size(s.image()) })
	}
	say := func(format string, args ...any) { fmt.Printf(p.name+": "+format+"\n", args...) }
	if err := s.combine(ctx, p, f, passed, save, say); err != nil {
		run.Error = err.Error()
		say("%v", err)
	}
	err = save()
	say("%d failures in %.0f s", f.failures(), run.Seconds)
	return f.failures(), err
}

// combine starts a cluster with podwall and tries on it what the plan says.
func (s *settings) combine(ctx context.Context, p plan, f *found, passed map[string]bool, save func() error,
	say func(string, ...any)) (err error) {
	w, err := s.start(ctx, p, f.run, say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := s.tryScenarios(ctx, w, f, passed, save, false); err != nil {
		return err
	}
	if focus := s.specs(p); focus != "" {
		f.specs, err = runSpecs(ctx, w.Cluster, s.bin(), s.work(p.file()), focus,
			skipped(passed, p.skip), say)
	}
	var costs error
	f.run.Agents, costs = w.agents()
	if err = errors.Join(err, costs, save()); err != nil {
		return err
	}
	return s.tryScenarios(ctx, w, f, passed, save, true)
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

// up is for people who want to look around in the first cluster that was chosen.
func (s *settings) up(ctx context.Context) error {
	plans := s.chosen()
	if len(plans) == 0 {
		return errNone
	}
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	w, err := s.start(ctx, plans[0], &Run{}, say)
	if err != nil {
		return err
	}
	pid := w.Nodes()[0].Pid()
	fmt.Printf("%s is up. kubectl:\n  nsenter --net=/proc/%d/fd/%d %s kubectl --kubeconfig %s get pods -A\n",
		plans[0].name, os.Getpid(), w.FabricFD(), filepath.Join(s.bin(), "kube"), w.Kubeconfig())
	fmt.Printf("a shell on the first node:\n  nsenter -t %d -a bash\nctrl-c ends it.\n", pid)
	<-ctx.Done()
	return w.close()
}

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}
