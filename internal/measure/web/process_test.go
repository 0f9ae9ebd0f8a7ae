// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/testkit/entry"
)

// TestMain runs the tests where they may make network namespaces.
func TestMain(m *testing.M) { entry.Main(m) }

// The kernel sends the death signal when a thread ends, and threads end here:
// connections to the API server are opened on threads that are thrown away.
func TestAProcessOutlivesThreads(t *testing.T) {
	p := sleeper(t, "sleep 60")
	for range 200 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		}()
		<-done
	}
	// Threads end a moment later than their goroutines. A signal that is on its
	// way comes before the answer of a process that is asked for its status.
	for range 100 {
		if err := p.lives(); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoppingAProcessEndsWhatItStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	p := sleeper(t, "trap '' TERM; sleep 60 & trap 'exit 0' TERM; echo $! > "+file+".new; mv "+file+".new "+file+"; wait")
	var child string
	for child == "" {
		text, err := os.ReadFile(file)
		if err == nil {
			child = strings.TrimSpace(string(text))
		}
		if err := p.lives(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		state, err := os.ReadFile("/proc/" + child + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("process %s, which does not end by SIGTERM, stayed", child)
}

func sleeper(t *testing.T, script string) *process {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(ns, "sleeper", filepath.Join(t.TempDir(), "log"), exec.Command("sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
