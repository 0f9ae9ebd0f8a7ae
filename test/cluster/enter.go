// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// start starts a program as if on the node: in all its namespaces, with its
// files. It ends with the node's first process at the latest. (The kernel's
// signal on the death of a parent cannot be used: package syscall takes a child in
// another process namespace for an orphan.)
func (n *Node) start(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go onSpareThread(func() {
		err := enter(n.Pid())
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	})
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s on %s: %w", filepath.Base(cmd.Path), n.Name, err)
	}
	return nil
}

// onSpareThread runs f on a thread that ends with it, because it cannot come back
// from where f brings it. The first thread cannot end, and it is what others see
// of this process.
func onSpareThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onSpareThread(f) // on another thread, since this one is taken
	}()
	<-done
	runtime.UnlockOSThread()
}

// enter brings this thread into the namespaces of a process. Its children are in
// the process namespace; the thread is not.
func enter(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// threads share it, and a mount namespace cannot be entered then
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the shared working directory: %w", err)
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID
	if err := unix.Setns(fd, all); err != nil {
		return fmt.Errorf("entering the namespaces of process %d: %w", pid, err)
	}
	return nil
}

// path is where the programs of a node are looked for.
func (n *Node) path() string {
	return "PATH=" + filepath.Join(n.options.Bin, "containerd") + ":/usr/sbin:/usr/bin:/sbin:/bin"
}

// Run runs a program on the node, waits for it and returns what it wrote to its
// standard output. The name of the program must be a path.
func (n *Node) Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), n.path())
	err := n.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%s: %s %s: %w: %s", n.Name, filepath.Base(program), strings.Join(args, " "), err,
			strings.TrimSpace(errs.String()))
	}
	return out.String(), err
}

// File is the name by which this program reaches a file of the node.
func (n *Node) File(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", n.Pid()), name)
}

// write makes a file of the node, and its directory.
func (n *Node) write(name, text string) error {
	file := n.File(name)
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644))
}
