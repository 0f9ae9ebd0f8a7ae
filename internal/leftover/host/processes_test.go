// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"os/exec"
	"path/filepath"
	"slices"
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
