// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// worldVariable names the cgroup of the tests, in the process that runs them.
const worldVariable = "PODWALL_CONTAINERD_WORLD"

// bin is where make leaves what is built, seen from this directory.
const bin = "../../bin"

// TestMain runs the tests as the first process of a world of their own. This
// process waits outside and removes what a world cannot: its cgroups.
func TestMain(m *testing.M) {
	if os.Getenv(worldVariable) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	status, err := inWorld()
	skip := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
	switch {
	case err != nil && skip && os.Getenv("CI") != "true":
		fmt.Println("skipping:", err)
		status = 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// built says which program is missing.
func built() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("a container runtime needs root: %w", fs.ErrPermission)
	}
	for program, target := range map[string]string{
		"containerd/containerd": "containerd", "containerd/containerd-shim-runc-v2": "containerd", "containerd/ctr": "containerd",
		"containerd/runc": "containerd", "containerd/probe": "containerd", "cni/bridge": "cni", "cni/ptp": "cni",
		"cni/host-local": "cni",
		"podwall-agent":  "build", "podwall-gate": "build"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return fmt.Errorf("run `make %s`: %w", target, err)
		}
	}
	return nil
}

// inWorld runs this program again as the first process of new namespaces and
// returns its status. When that process ends, however it does, the kernel ends
// all others of the world and takes its mounts away.
func inWorld() (status int, err error) {
	if err := built(); err != nil {
		return 0, err
	}
	runtime.LockOSThread() // the death signal is bound to it
	defer runtime.UnlockOSThread()
	group := fmt.Sprintf("podwall-test-%d", os.Getpid())
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), worldVariable+"="+group)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("making namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != syscall.SIGQUIT { // which prints the stacks
				s = syscall.SIGKILL
			}
			_ = cmd.Process.Signal(s) // it may have ended by now
		case err := <-ended:
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				err = nil
			}
			status = max(cmd.ProcessState.ExitCode(), 0)
			if !cmd.ProcessState.Exited() {
				status = 1
			}
			return status, errors.Join(err, removeGroups(group))
		}
	}
}

// removeGroups removes the cgroups of that name below our own, in every
// hierarchy.
func removeGroups(name string) error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("reading our cgroups: %w", err)
	}
	places := []string{"/"}
	for line := range strings.Lines(string(text)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && !slices.Contains(places, f[2]) {
			places = append(places, f[2])
		}
	}
	mounts, err := mountPoints("cgroup", "cgroup2")
	for _, mount := range mounts {
		for _, place := range places {
			err = errors.Join(err, removeTree(filepath.Join(mount, place, name)))
		}
	}
	return err
}

// removeTree removes a cgroup and those below it. The kernel takes a moment
// to see that the processes in it have ended.
func removeTree(top string) (err error) {
	for range 200 {
		var dirs []string
		_ = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil // what is gone is gone
		})
		slices.Reverse(dirs)
		err = nil
		for _, dir := range dirs {
			err = errors.Join(err, os.Remove(dir))
		}
		if err == nil {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("removing the cgroup %s: %w", top, err)
}

// mountPoints returns where file systems of these types are mounted, in the
// order of mounting.
func mountPoints(types ...string) (list []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		left, right, _ := strings.Cut(line, " - ")
		if f, g := strings.Fields(left), strings.Fields(right); len(f) > 4 && len(g) > 0 && slices.Contains(types, g[0]) {
			list = append(list, f[4])
		}
	}
	return list, nil
}

// furnish gives the world its own view of files: processes, and memory where
// runtimes write. Network namespaces of others that are mounted somewhere are
// let go of, or they would live on as long as this world.
func furnish() error {
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("cutting the mounts off from others': %w", err)
	}
	others, err := mountPoints("nsfs")
	for _, name := range slices.Backward(others) {
		err = errors.Join(err, syscall.Unmount(name, syscall.MNT_DETACH))
	}
	err = errors.Join(err, syscall.Mount("proc", "/proc", "proc", 0, ""))
	for _, dir := range []string{"/run", "/var/lib"} {
		err = errors.Join(err, syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	}
	if err := errors.Join(err, os.Mkdir("/run/tmp", 0o700), os.Setenv("TMPDIR", "/run/tmp")); err != nil {
		return fmt.Errorf("mounting what the tests need: %w", err)
	}
	return nil
}
