// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// marker in the environment says that this process is the one inside.
const marker = "PODWALL_OWN_WORLD"

// ErrNoPrivilege is returned when this process can make network namespaces
// neither by its own rights nor inside a user namespace.
var ErrNoPrivilege = errors.New("no right to make network namespaces")

// Enter makes sure that namespaces can be made. With the right to do so it
// returns at once with again false. Otherwise it runs this program again, with
// the same arguments, as root of new user, mount and network namespaces, waits
// for it, and returns its exit status with again true: the caller must then
// exit with that status. Call it first in main or TestMain.
func Enter() (status int, again bool, err error) {
	denied := allowed()
	if denied == nil {
		return 0, false, nil
	}
	if os.Getenv(marker) != "" {
		return 0, false, missing("a user namespace could be made, but gives no rights", denied)
	}
	status, err = runInside()
	return status, err == nil, err
}

func allowed() error {
	ns, err := New()
	if err != nil {
		return err
	}
	return ns.Close()
}

func missing(what string, cause error) error {
	return fmt.Errorf("%w: %s (%w); run as root, or allow user namespaces: sysctl user.max_user_namespaces > 0, "+
		"kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where these exist",
		ErrNoPrivilege, what, cause)
}

func runInside() (int, error) {
	// The death signal is bound to the thread that starts the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, missing("no root rights, and no user namespace", err)
	}
	return wait(cmd, signals)
}

// wait hands signals on until the process ends. A terminal sends its interrupt
// to both, so only SIGTERM and SIGHUP need it.
func wait(cmd *exec.Cmd, signals <-chan os.Signal) (int, error) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != syscall.SIGINT {
				_ = cmd.Process.Signal(s) // it may have ended by now
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, fmt.Errorf("running this program in a user namespace: %w", err)
			}
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}
