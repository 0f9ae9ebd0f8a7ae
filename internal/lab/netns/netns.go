// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package netns makes network namespaces that live only as long as the process
// that holds them.
//
// A namespace is held by an open file descriptor and by nothing else: it has no
// name under /run/netns, so it goes away with the process, also when that is
// killed. The package never changes the namespace that it was called in. It is
// the ground on which package lab builds its beds.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const threadNS = "/proc/thread-self/ns/net"

// NS is a network namespace. Its methods may be called from several
// goroutines. After Close they fail; FD and Path must not be called then.
type NS struct{ file *os.File }

// New makes an empty namespace with its loopback link up.
func New() (*NS, error) {
	ns := &NS{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		file, err := os.Open(threadNS)
		if err != nil {
			return fmt.Errorf("opening the new network namespace: %w", err)
		}
		ns.file = file
		return loopbackUp()
	})
	if err != nil && ns.file != nil {
		err = errors.Join(err, ns.file.Close())
	}
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// Open holds a namespace that exists, such as that of another process:
// /proc/PID/ns/net. It lives on until Close, also without that process.
func Open(path string) (*NS, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a network namespace: %w", err)
	}
	return &NS{file}, nil
}

// FD returns the file descriptor of the namespace. It stays the property of ns.
func (ns *NS) FD() int { return int(ns.file.Fd()) }

// Path returns a file name by which other processes can open the namespace
// while this one holds it.
func (ns *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD()) }

// Close lets go of the namespace. The kernel removes it, and every link in it,
// as soon as no process and no socket uses it any more.
func (ns *NS) Close() error { return ns.file.Close() }

// Do runs f inside the namespace, on an operating system thread of its own.
// Goroutines that f starts are outside again. f must not end the goroutine
// (as testing.T.Fatal does); that is returned as an error.
func (ns *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := ns.enter(); err != nil {
			return fmt.Errorf("entering the network namespace: %w", err)
		}
		return f()
	})
}

// enter brings the thread into the namespace. The descriptor is held meanwhile:
// a client that dials in the background may come after Close.
func (ns *NS) enter() error {
	raw, err := ns.file.SyscallConn()
	if err != nil {
		return err
	}
	entered := raw.Control(func(fd uintptr) { err = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	return errors.Join(entered, err)
}

// Start starts a process inside the namespace. Unless the caller says
// otherwise the kernel kills the process when this one ends.
//
// The kernel does so when the thread ends that started the process, and threads
// may end long before the program does. So the thread stays as long as the
// process; whoever waits for the process still gets its end (prctl(2),
// PR_SET_PDEATHSIG).
func (ns *NS) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	started := make(chan error, 1)
	go func() {
		err := ns.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				watch(cmd.Process.Pid)
			}
			return nil
		})
		if err != nil { // then nothing was started
			started <- err
		}
	}()
	return <-started
}

// watch returns when a child has ended, and leaves it to be waited for.
func watch(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) { // another error: somebody waited already
			return
		}
	}
}

// Dial connects from inside the namespace. The address must be literal, since
// names are looked up on threads that are outside.
func (ns *NS) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dialing in a network namespace: %w", err)
	}
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen opens a stream listener inside the namespace; the address must be
// literal.
func (ns *NS) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("listening in a network namespace: %w", err)
	}
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// Sysctl is one setting below /proc/sys/net, as in ipv4/ip_forward.
type Sysctl struct {
	Path, Value string
	// Optional settings may be missing: older kernels do not have them in
	// other namespaces than the first, or their module is not loaded.
	Optional bool
}

// SetSysctls writes settings of this namespace, in the given order.
func (ns *NS) SetSysctls(settings []Sysctl) error {
	return ns.Do(func() error {
		for _, s := range settings {
			err := os.WriteFile(filepath.Join("/proc/sys/net", s.Path), []byte(s.Value), 0)
			if err != nil && !(s.Optional && (os.IsNotExist(err) || os.IsPermission(err))) {
				return fmt.Errorf("setting net/%s to %s: %w", s.Path, s.Value, err)
			}
		}
		return nil
	})
}

// onThread runs f on a locked thread and brings the thread back to its
// namespace. A thread that cannot be brought back dies with its goroutine.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("function ended its goroutine inside a network namespace")
		defer func() { result <- err }()
		runtime.LockOSThread()
		home, openErr := os.Open(threadNS)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("opening the thread's network namespace: %w", openErr)
			return
		}
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			_ = home.Close() // read only, nothing to lose
		}()
		err = f()
	}()
	return <-result
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket in the new namespace: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("setting the loopback link up: %w", err)
	}
	return nil
}
