// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestResultsAreRead(t *testing.T) {
	tests := []struct {
		name, out string
		status    int
		want      Result
	}{
		{"parts count, not the whole", "=== RUN   TestA\n=== RUN   TestA/one\n=== RUN   TestA/two\n--- PASS: TestA (1.00s)\n" +
			"    --- PASS: TestA/one (0.50s)\n    --- PASS: TestA/two (0.50s)\n=== RUN   TestB\n--- PASS: TestB (0.00s)\nPASS\n", 0, Result{Passed: 3}},
		{"a name may begin as another", "--- PASS: TestA (0.00s)\n--- PASS: TestAB (0.00s)\n", 0, Result{Passed: 2}},
		{"a part fails", "--- FAIL: TestA (1.00s)\n    --- FAIL: TestA/one (0.50s)\n    --- PASS: TestA/two (0.50s)\nFAIL\n", 1,
			Result{Passed: 1, Failed: []string{"TestA/one"}}},
		{"the whole fails and no part does", "--- FAIL: TestA (1.00s)\n    --- PASS: TestA/one (0.50s)\nFAIL\n", 1,
			Result{Passed: 1, Failed: []string{"TestA"}}},
		{"the output of a process of its own", "=== RUN   TestA\n    x.go:1: exit status 1\n        --- FAIL: TestA (0.10s)\n--- FAIL: TestA (1.00s)\n", 1,
			Result{Failed: []string{"TestA"}}},
		{"skipped with its reason", "=== RUN   TestA\n    a_test.go:12: no plugin\n--- SKIP: TestA (0.00s)\nPASS\n", 0,
			Result{Skipped: []Skipped{{"TestA", "no plugin"}}}},
		{"no time left", "--- PASS: TestA (0.00s)\n=== RUN   TestB\npanic: test timed out after 3m0s\n", 2,
			Result{Passed: 1, Failed: []string{"TestB (did not end)"}}},
		{"the machine ended", "run: the machine gave no status; its console:\n", 125,
			Result{Failed: []string{"no test (the machine ended without a status)"}}},
		{"a failure outside of tests", "--- PASS: TestA (0.00s)\nPASS\n", 1, Result{Passed: 1, Failed: []string{"no test (exit status 1)"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got Result
			got.take(tt.out, tt.status)
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if bad := got.bad(); bad != (len(tt.want.Failed) > 0 || tt.want.Passed == 0) {
				t.Errorf("bad = %v", bad)
			}
		})
	}
}

// Every skipped test is there: a reason for a test that is gone excuses another.
func TestWhatIsSkippedIsThere(t *testing.T) {
	list, err := readSkips(skipsText)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		i := slices.IndexFunc(suites(), func(s suite) bool { return s.Name == k.Suite })
		if i < 0 {
			t.Errorf("%s: there is no suite %s", k.Test, k.Suite)
			continue
		}
		name, _, _ := strings.Cut(k.Test, "/")
		if !declares(t, filepath.Join("../..", suites()[i].Package), name) {
			t.Errorf("%s has no test %s", suites()[i].Package, name)
		}
	}
}

func declares(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s (%v)", dir, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

func TestASkipNeedsItsReason(t *testing.T) {
	for _, bad := range []string{"* nft TestA", "* nft TestA why", "sarge nft TestA it is too old"} {
		if _, err := readSkips(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	list, err := readSkips("# why\n\n* nft TestA/part no such thing\nbullseye nft TestB not yet there\n")
	if err != nil || len(chosen(list, "bookworm", "nft")) != 1 || len(chosen(list, "bullseye", "nft")) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if got, want := pattern(list), "^TestA$/^part$|^TestB$"; got != want {
		t.Errorf("pattern %s, want %s", got, want)
	}
}

// A test that failed and passes in a later part is not one that fails.
func TestWhatPassesLaterIsMended(t *testing.T) {
	r := &Report{}
	r.put(Result{Release: "trixie", Suite: "nft", Kernel: "6", Passed: 3, Failed: []string{"TestA", "TestB"}})
	r.put(Result{Release: "bookworm", Suite: "nft", Kernel: "5", Failed: []string{"TestA"}})
	later := Result{Release: "trixie", Suite: "nft", Kernel: "6", Part: "TestA", Commit: "abc"}
	later.take("--- PASS: TestA (0.00s)\nPASS\n", 0)
	r.put(later)
	text := r.markdown()
	for _, want := range []string{"- 6, nft: TestB\n", "- 6, nft: TestA, which passed at abc\n", "- 5, nft: TestA\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "- 6, nft: TestA\n") {
		t.Errorf("TestA still fails:\n%s", text)
	}
}

// Without -run a suite has its usual part, with "." all of its tests.
func TestWhichPartIsRun(t *testing.T) {
	for part, want := range map[string]string{"": usualAttacks, ".": "", "TestA": "TestA"} {
		list, err := choose("attack", part)
		if err != nil || len(list) != 1 || list[0].Part != want {
			t.Errorf("-run %q: %+v (%v), want part %q", part, list, err, want)
		}
	}
}

func TestAResultReplacesTheOneBefore(t *testing.T) {
	name := filepath.Join(t.TempDir(), "kernels")
	r := &Report{}
	r.put(Result{Release: "trixie", Suite: "nft", Kernel: "6", Failed: []string{"TestA"}})
	r.put(Result{Release: "trixie", Suite: "nft", Part: "TestB", Kernel: "6", Passed: 7})
	r.put(Result{Release: "bullseye", Suite: "attack", Kernel: "5", Passed: 1})
	r.put(Result{Release: "trixie", Suite: "nft", Kernel: "6", Passed: 2, Skipped: []Skipped{{"TestB", "no use"}}})
	r.put(Result{Release: "bullseye", Suite: "attack", Part: "TestC|TestD", Kernel: "5", Passed: 3})
	if err := r.write(name); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again, cmpopts.IgnoreUnexported(Result{})); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	text := again.markdown()
	order := regexp.MustCompile(`(?s)\| 5 \| attack \| 1 \| 0 \| 0 .*\| 5 \| attack, a part: .TestC.\|TestD. \| 3 .*\| 6 \| nft \| 2 \| 0 \| 1 .*Nothing\..*nft TestB: no use \(trixie\)`)
	if !order.MatchString(text) || strings.Contains(text, "TestB`") {
		t.Errorf("the report:\n%s", text)
	}
}

// A report that was written does not make the tree another one; any other change does.
func TestWhichCommitAReportNames(t *testing.T) {
	t.Chdir(t.TempDir())
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("code")
	run("git", "init", "-q")
	run("git", "add", ".")
	run("git", "-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "x")
	at := commit(t.Context(), "kernels")
	if len(at) != 12 {
		t.Errorf("a tree without changes is of commit %q", at)
	}
	write("kernels.md")
	write("kernels.json")
	if got := commit(t.Context(), "kernels"); got != at {
		t.Errorf("with a new report it is %q, want %q", got, at)
	}
	write("more")
	if got := commit(t.Context(), "kernels"); got != at+"-dirty" {
		t.Errorf("with another file it is %q, want %q", got, at+"-dirty")
	}
}
