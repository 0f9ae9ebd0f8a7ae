// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package apart runs parts of tests in a process and network namespace of
// their own, or as another user. It owns these processes and threads: none outlives the test.
package apart

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

const marker = "PODWALL_APART_TEST"

// Run runs f in a process of its own, inside a network namespace of its own: the
// code under test works where its process is, with all its goroutines. Nothing that
// f leaves behind outlives it. Outside CI a missing privilege skips the test.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(marker) == t.Name() {
		f(t)
		return
	}
	ns, err := netns.New()
	if err != nil {
		missing(t, err)
	}
	defer func() { _ = ns.Close() }() // it vanishes with the processes in it
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.timeout=5m", "-test.v")
	cmd.Env = append(os.Environ(), marker+"="+t.Name())
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

// AsUser runs f on a thread with the effective user. Outside CI a missing privilege
// skips the test.
func AsUser(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const keep = ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); e != 0 {
		missing(t, e)
	}
	defer func() {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); e != 0 {
			panic(e) // the thread must not be used again
		}
	}()
	f()
}

func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}
