// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// program is one that runs on the node.
type program struct {
	*process.Process
	t *testing.T
}

// start starts a program in the node's network. It is stopped with the test,
// and its log printed if that failed.
func (n *node) start(path string, args ...string) *program {
	n.t.Helper()
	name := filepath.Base(path)
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "PATH="+absolute(n.t, "containerd")+":/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{} // it ends with the world, and not with a thread of ours
	run, err := process.Start(cmd, process.Options{Name: name, Log: filepath.Join(n.dir, name+"-*.log"), NS: n.ns})
	check(n.t, err)
	p := &program{run, n.t}
	n.t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if n.t.Failed() {
			n.t.Logf("end of the log of %s:\n%s", name, p.Tail())
		}
	})
	return p
}

func (p *program) stop(s syscall.Signal) {
	_ = p.Signal(s) // it may have ended by itself
	if err := p.EndWithin(time.Minute); err != nil {
		p.t.Error(err)
	}
}

func (p *program) runs() bool { return process.Lives(p.Process) == nil }

func (p *program) text() string {
	text, err := p.Log()
	check(p.t, err)
	return string(text)
}

// logs counts the lines of the log with a text.
func (p *program) logs(text string) int { return strings.Count(p.text(), text) }

// absolute returns the path of something that was built.
func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(bin, name))
	check(t, err)
	return path
}

// check fails the test at once. It is for what must work before anything can be
// tested.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await returns when a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: does not come true", what)
		}
	}
}

// newNetwork is a node's network: nothing but loopback.
func newNetwork(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	check(t, err)
	t.Cleanup(func() { check(t, ns.Close()) })
	return ns
}
