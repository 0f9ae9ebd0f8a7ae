// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// stepped is a source that a test calls itself, with a clock of the test's.
type stepped struct {
	*Source
	t     *testing.T
	store *cluster.Store
	now   time.Time
}

func newStepped(t *testing.T) *stepped {
	s := &stepped{New(t.TempDir(), slog.New(slog.DiscardHandler)), t, cluster.NewStore(), time.Unix(1000, 0)}
	s.clock = func() time.Time { return s.now }
	return s
}

// look lets time pass and reads the directory. It returns the pods, the number of
// diagnostics, and whether the store says that all of it is in force.
func (s *stepped) look(after time.Duration) (pods string, found []cluster.Diagnostic, inForce bool) {
	s.t.Helper()
	s.now = s.now.Add(after)
	if err := s.sync(s.store); err != nil {
		s.t.Fatal(err)
	}
	digest, err := Digest(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	d := s.store.Take()
	return podIPs(s.store.Snapshot()), d.Diagnostics, d.Source == digest
}

func (s *stepped) want(after time.Duration, pods string, diagnostics int, inForce bool) []cluster.Diagnostic {
	s.t.Helper()
	gotPods, found, got := s.look(after)
	if gotPods != pods || len(found) != diagnostics || got != inForce {
		s.t.Errorf("pods %q, in force %v, diagnostics %v; want %q, %v, %d", gotPods, got, found, pods, inForce,
			diagnostics)
	}
	return found
}

func TestFileThatBecomesEmptyKeepsItsLastContent(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "comments": "# a\n---\n# b\n", "null": "---\nnull\n", "a mark": "\uFEFF",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStepped(t)
			write(t, s.dir, "a.yaml", namedPod("a", "10.0.0.1"))
			s.want(0, "a=10.0.0.1", 0, true)
			replaceFile(t, s.dir, "a.yaml", text)
			found := s.want(time.Hour, "a=10.0.0.1", 1, true)
			d := found[0]
			if d.Severity != cluster.Error || !strings.Contains(d.Message, "previous content stays") || d.Cure == "" {
				t.Errorf("the diagnostic is %v", d)
			}
			s.want(time.Hour, "a=10.0.0.1", 1, true)
			replaceFile(t, s.dir, "a.yaml", `{"apiVersion": "v1", "kind": "List", "items": []}`)
			s.want(0, "", 0, true)
			replaceFile(t, s.dir, "a.yaml", namedPod("a", "10.0.0.2"))
			s.want(0, "a=10.0.0.2", 0, true)
			replaceFile(t, s.dir, "a.yaml", text)
			s.want(0, "a=10.0.0.2", 1, true)
			if err := os.Remove(filepath.Join(s.dir, "a.yaml")); err != nil {
				t.Fatal(err)
			}
			s.want(0, "", 0, true)
		})
	}
}

func TestFileThatBecomesLessInPlaceIsHeldUntilItStaysTheSame(t *testing.T) {
	s := newStepped(t)
	one, two := namedPod("a", "10.0.0.1"), "---"+namedPod("b", "10.0.0.2")
	const both, onlyA = "a=10.0.0.1 b=10.0.0.2", "a=10.0.0.1"
	write(t, s.dir, "f.yaml", one+two)
	s.want(0, both, 0, true)
	write(t, s.dir, "f.yaml", one)
	found := s.want(0, both, 1, false)
	if !strings.Contains(found[0].Message, "in place") || !strings.Contains(found[0].Cure, "rename") {
		t.Errorf("the diagnostic is %v", found[0])
	}
	s.want(steady-1, both, 1, false)
	// Other files do not wait.
	write(t, s.dir, "other.yaml", namedPod("c", "10.0.0.3"))
	s.want(0, both+" c=10.0.0.3", 1, false)
	write(t, s.dir, "f.yaml", one+"#") // its writer is still at it
	s.want(1, both+" c=10.0.0.3", 1, false)
	s.want(steady-1, both+" c=10.0.0.3", 1, false)
	s.want(1, onlyA+" c=10.0.0.3", 0, true)

	// Longer, but without an object that was there.
	write(t, s.dir, "f.yaml", namedPod("d", "10.0.0.4")+strings.Repeat("#\n", 100))
	s.want(0, onlyA+" c=10.0.0.3", 1, false)
	// In the end it has everything.
	write(t, s.dir, "f.yaml", one+"---"+namedPod("d", "10.0.0.4"))
	s.want(0, onlyA+" c=10.0.0.3 d=10.0.0.4", 0, true)
	// Truncated to nothing, then written in two steps.
	write(t, s.dir, "f.yaml", "")
	s.want(0, onlyA+" c=10.0.0.3 d=10.0.0.4", 1, true)
	write(t, s.dir, "f.yaml", one)
	s.want(time.Hour, onlyA+" c=10.0.0.3 d=10.0.0.4", 1, false)
	write(t, s.dir, "f.yaml", one+two)
	s.want(0, onlyA+" c=10.0.0.3 d=10.0.0.4", 1, false)
	s.want(steady, both+" c=10.0.0.3", 0, true)
}

func TestFileThatIsReplacedIsNotHeld(t *testing.T) {
	s := newStepped(t)
	write(t, s.dir, "f.yaml", namedPod("a", "10.0.0.1")+"---"+namedPod("b", "10.0.0.2"))
	s.want(0, "a=10.0.0.1 b=10.0.0.2", 0, true)
	replaceFile(t, s.dir, "f.yaml", namedPod("a", "10.0.0.1"))
	s.want(0, "a=10.0.0.1", 0, true)
}

// TestSourceLooksAgainAtAFileThatIsHeld: nothing happens in the directory any more
// when the file has stayed the same for long enough.
func TestSourceLooksAgainAtAFileThatIsHeld(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "f.yaml", namedPod("a", "10.0.0.1")+"---"+namedPod("b", "10.0.0.2"))
	store := start(t, dir)
	await(t, store, dir)
	write(t, dir, "f.yaml", namedPod("a", "10.0.0.1"))
	if s, d := await(t, store, dir); podIPs(s) != "a=10.0.0.1" || len(d.Diagnostics) != 0 {
		t.Errorf("at the end: %s, %v", podIPs(s), d.Diagnostics)
	}
}

func TestAnEmptyFileAtTheStartIsNotReady(t *testing.T) {
	s := newStepped(t)
	write(t, s.dir, "a.yaml", namedPod("a", "10.0.0.1"))
	write(t, s.dir, "policies.yaml", "# nothing here\n")
	for range 2 {
		s.want(time.Minute, "a=10.0.0.1", 1, true)
		if missing := s.store.Missing(); len(missing) != len(cluster.Kinds()) {
			t.Errorf("%v are missing, want every kind", missing)
		}
		f := s.Feeds()[0]
		if !f.Connected || !strings.Contains(f.Err, "policies.yaml:1: the file holds no object") ||
			!strings.Contains(f.Cure, "remove it") {
			t.Errorf("the feed is %+v", f)
		}
	}
	replaceFile(t, s.dir, "policies.yaml", policy)
	s.want(0, "a=10.0.0.1", 0, true)
	if missing := s.store.Missing(); missing != nil || s.Feeds()[0].Err != "" {
		t.Errorf("%v are missing, the feed is %+v", missing, s.Feeds()[0])
	}
}

func TestPoliciesOfOtherProjectsAreNamedInTheLogOnce(t *testing.T) {
	var log strings.Builder
	s := newStepped(t)
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	const text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: c, namespace: a}\n"
	for i := range 3 {
		replaceFile(t, s.dir, "c.yaml", text+strings.Repeat("#", i))
		if found := s.want(0, "", 1, true); len(found) == 1 && !strings.Contains(found[0].Message, "not enforced") {
			t.Errorf("the diagnostic is %v", found[0])
		}
	}
	if n := strings.Count(log.String(), "policies of other projects are not enforced"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}
