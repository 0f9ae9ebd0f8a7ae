// SPDX-License-Identifier: Apache-2.0

// Mutants asks whether the tests notice typical mistakes. It puts each mistake
// of mutants.txt into the program, one at a time, runs the fast tests that
// should see it, and prints which test did. A mistake that no test notices is
// a test that is missing.
//
// It stands beside the data path and changes nothing: the go command reads the
// mutated file from an overlay, the tree stays as it is.
//
//	go run ./test/mutants [-only TEXT] [-skip N] [-seed N]
//
// Run it at the top of the repository. It exits with 1 if a mutant survives, and with
// 2 if one could not be tried, since it does not compile, after it has tried the others.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "try only mutants whose file or mistake contains this text")
	skip := flag.Int("skip", 0, "leave out the first `N` of them, as after a run that ended early")
	seed := flag.Uint64("seed", 1, "seed of the random clusters, so that a run can be repeated")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	survivors, err := run(ctx, *only, *skip, *seed)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if survivors > 0 {
		os.Exit(1)
	}
}

// run tries the mutants and returns how many survived.
func run(ctx context.Context, only string, skip int, seed uint64) (int, error) {
	list, err := table()
	if err != nil {
		return 0, err
	}
	list = choose(list, only)
	list = list[min(max(skip, 0), len(list)):]
	dir, err := os.MkdirTemp("", "podwall-mutants-")
	if err != nil {
		return 0, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing but temporary files
	t := &tester{dir: dir, seed: seed}
	if err := t.healthy(ctx, list); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	results := t.all(ctx, list)
	survivors, err := report(list, results)
	cancel()
	for range results { // after an error: until the tests under way have ended
	}
	return survivors, err
}

func choose(list []mutant, only string) []mutant {
	var chosen []mutant
	for _, m := range list {
		if strings.Contains(m.file+": "+m.mistake, only) {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// report prints a line for each mutant as it is judged, then the survivors. The error
// says which could not be tried.
func report(list []mutant, results <-chan result) (int, error) {
	const line = "%-82s %-28s %-62s %7s\n"
	start := time.Now()
	var survivors []mutant
	var broken []error
	fmt.Printf(line, "MISTAKE", "FILE", "KILLED BY", "SECONDS")
	for _, m := range list {
		r := <-results
		by := r.killedBy
		switch {
		case r.err != nil:
			by = "not tried"
			broken = append(broken, fmt.Errorf("%s: %s: %w", m.file, m.mistake, r.err))
		case by == "":
			by = "nobody"
			survivors = append(survivors, m)
		}
		fmt.Printf(line, m.mistake, strings.TrimPrefix(m.file, "internal/"), by, fmt.Sprintf("%.1f", r.took.Seconds()))
	}
	killed := len(list) - len(survivors) - len(broken)
	fmt.Printf("\n%d mutants, %d killed, %d survived, %d not tried, %.0f s\n",
		len(list), killed, len(survivors), len(broken), time.Since(start).Seconds())
	for _, m := range survivors {
		fmt.Printf("survived: %s: %s\n", m.file, m.mistake)
	}
	return len(survivors), errors.Join(broken...)
}
