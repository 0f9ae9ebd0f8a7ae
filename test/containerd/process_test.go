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
)

// process is a program that runs on the node.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// start starts a program in the node's network. It is stopped with the test,
// and its log printed if that failed.
func (n *node) start(program string, args ...string) *process {
	n.t.Helper()
	log, err := os.CreateTemp(n.dir, filepath.Base(program)+"-*.log")
	check(n.t, err)
	defer log.Close() // the process has its own descriptor
	p := &process{t: n.t, log: log.Name(), ended: make(chan struct{}), cmd: exec.Command(program, args...)}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), "PATH="+absolute(n.t, "containerd")+":/usr/sbin:/usr/bin:/sbin:/bin")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{} // it ends with the world, and not with a thread of ours
	check(n.t, n.ns.Start(p.cmd))
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // nobody asks how it ended
	}()
	n.t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if n.t.Failed() {
			n.t.Logf("end of the log of %s:\n%s", filepath.Base(program), p.tail())
		}
	})
	return p
}

func (p *process) stop(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // it may have ended by itself
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s does not end, killing it", p.cmd.Path)
		_ = p.cmd.Process.Kill() // it may end just now
		<-p.ended
	}
}

func (p *process) runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) text() string {
	text, err := os.ReadFile(p.log)
	check(p.t, err)
	return string(text)
}

// logs counts the lines of the log with a text.
func (p *process) logs(text string) int { return strings.Count(p.text(), text) }

func (p *process) tail() string {
	lines := strings.Split(p.text(), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

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
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
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
