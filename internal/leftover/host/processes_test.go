// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Try(m) }

// A process in another network namespace writes no rules here: a node of a cluster may be a container.
func TestProcessesOfThisNetworkNamespace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "podwall-other")
	if out, err := exec.Command("cp", "/bin/sleep", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ns, err := netns.New()
	if err != nil {
		t.Skip(err)
	}
	defer ns.Close()
	near, far := exec.Command(name, "100"), exec.Command(name, "100")
	if err := near.Start(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(far); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range []*exec.Cmd{near, far} {
			_ = c.Process.Kill() // ours
			_ = c.Wait()
		}
	}()
	var list []Process
	for start := time.Now(); time.Since(start) < 5*time.Second && len(list) == 0; time.Sleep(10 * time.Millisecond) {
		if list, err = Processes("podwall-other"); err != nil {
			t.Fatal(err)
		}
	}
	if len(list) != 1 || !slices.Equal(list[0].Args, []string{name, "100"}) {
		t.Errorf("processes = %v, want the near one", list)
	}
}

// A process that has ended writes nothing any more, although it is still listed.
func TestProcessesThatEnded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "podwall-ended")
	if out, err := exec.Command("cp", "/bin/true", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	stat := fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(stat); err != nil || time.Now().After(end) {
			t.Fatalf("it does not end: %s (%v)", text, err)
		} else if strings.Contains(string(text), "(podwall-ended) Z ") {
			break
		}
	}
	if list, err := Processes("podwall-ended"); err != nil || len(list) > 0 {
		t.Errorf("processes = %v, %v, want none", list, err)
	}
}
