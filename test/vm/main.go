// SPDX-License-Identifier: Apache-2.0

// VM runs the tests that depend on the kernel in virtual machines, with the
// kernels of Debian's releases, and writes what they said into docs/reports.
//
//	go run ./test/vm [-only SUITE,...] [-run TEST] [-report DIR] [RELEASE...]
//
// Run it at the top of the repository, as root; `make vm` and hack/vm/all do.
// It starts one machine at a time, builds what goes into it, and counts results.
// It judges nothing itself, and it exits with 1 if a test failed or a machine
// gave no result.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "run these suites only, a list with commas")
	part := flag.String("run", "", "run only tests that match, as go test -run does; the report says that it is a part")
	dir := flag.String("report", "docs/reports", "the directory of kernels.md and kernels.json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := run(ctx, flag.Args(), *only, *part, filepath.Join(*dir, "kernels"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if failed {
		os.Exit(1)
	}
}

// run runs the suites on the releases, all of them by default. After each it
// writes the report, so that a run that is ended leaves what it knows.
func run(ctx context.Context, releases []string, only, part, report string) (failed bool, err error) {
	if len(releases) == 0 {
		releases = allReleases()
	}
	list, err := choose(only, part)
	if err != nil {
		return false, err
	}
	skips, err := readSkips(skipsText)
	if err != nil {
		return false, err
	}
	r, err := readReport(report + ".json")
	if err != nil {
		return false, err
	}
	tree, err := os.MkdirTemp("", "podwall-vm-")
	if err != nil {
		return false, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(tree) }() // nothing but copies
	if err := build(ctx, tree, list); err != nil {
		return false, err
	}
	var fresh []Result
	at := commit(ctx, report) // of what was built, whatever is committed while the machines run
	for _, release := range releases {
		for _, s := range list {
			one, err := try(ctx, tree, release, s, skips, at)
			if err != nil {
				return false, err
			}
			fmt.Println(one.line())
			failed = failed || one.bad()
			fresh = append(fresh, one)
			r.put(one)
			if err := r.write(report); err != nil {
				return false, err
			}
		}
	}
	fmt.Printf("\n%s", table(fresh))
	fmt.Printf("\n%s", details(fresh))
	return failed, nil
}

// try runs a suite on a release, and once more if the machine gave no status:
// QEMU crashes some kernels now and then.
func try(ctx context.Context, tree, release string, s suite, skips []skip, at string) (Result, error) {
	if err := fetch(ctx, release); err != nil {
		return Result{}, err
	}
	left := chosen(skips, release, s.Name)
	r := Result{Release: release, Suite: s.Name, Part: s.Part,
		Kernel: version(release), Commit: at, Began: time.Now().UTC().Truncate(time.Second)}
	for r.Tries = 1; ; r.Tries++ {
		begin := time.Now()
		out, status, err := boot(ctx, tree, release, s, left)
		if err != nil {
			return r, err
		}
		r.Seconds = time.Since(begin).Round(time.Second).Seconds()
		r.take(out, status)
		if status != noStatus || r.Tries == 2 {
			break
		}
		if err := os.Rename(logOf(release, s), logOf(release, s)+".1"); err != nil { // it says why
			return r, fmt.Errorf("keeping the output: %w", err)
		}
	}
	for _, k := range left {
		r.Skipped = append(r.Skipped, Skipped{k.Test, k.Reason})
	}
	return r, ctx.Err()
}

// logOf names the file with what a suite printed on a release. That of a first try whose machine ended has .1 added.
func logOf(release string, s suite) string { return filepath.Join("bin/vm", release, s.Name+".log") }

// noStatus is what hack/vm/run returns when the machine ended without one.
const noStatus = 125

// boot runs a suite in a machine, and returns what it printed and its status.
// The output stays beside the kernel, and grows there as it comes.
func boot(ctx context.Context, tree, release string, s suite, left []skip) (string, int, error) {
	cmd := exec.CommandContext(ctx, "hack/vm/run", release, s.command(left), tree)
	cmd.Env = append(os.Environ(), fmt.Sprintf("VM_SECONDS=%d", int((limit+time.Minute).Seconds())),
		"VM_MEMORY=4096", "VM_CPUS=2")
	// The machine is a grandchild: an interrupt of the script must reach it too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	log := logOf(release, s)
	out, err := os.Create(log)
	if err != nil {
		return "", 0, fmt.Errorf("keeping the output: %w", err)
	}
	defer func() { _ = out.Close() }() // written by others
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", 0, ctx.Err()
	}
	if cmd.ProcessState == nil {
		return "", 0, fmt.Errorf("starting a machine: %w", err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return "", 0, fmt.Errorf("reading what the tests printed: %w", err)
	}
	return string(text), cmd.ProcessState.ExitCode(), nil
}

func fetch(ctx context.Context, release string) error {
	if out, err := exec.CommandContext(ctx, "hack/vm/kernel", release).CombinedOutput(); err != nil {
		return fmt.Errorf("fetching the kernel of %s: %w\n%s", release, err, out)
	}
	return nil
}

func version(release string) string {
	text, err := os.ReadFile(filepath.Join("bin/vm", release, "version"))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// commit is the commit of the tree here, with "-dirty" if a file differs from it. The
// report does not count: it is not built, and each suite that ends changes it.
func commit(ctx context.Context, report string) string {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	at := strings.TrimSpace(string(out))
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ".",
		":(exclude)"+report+".md", ":(exclude)"+report+".json").Output()
	if err != nil || len(changed) > 0 {
		at += "-dirty"
	}
	return at
}
