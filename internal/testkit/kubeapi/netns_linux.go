// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// netns is a network namespace that is kept open. The zero value is the
// caller's own.
type netns struct{ file *os.File }

// keepNetns opens the namespace of a file a second time, so that the caller
// may close the first. 0 gives the zero value.
func keepNetns(fd int) (netns, error) {
	if fd == 0 {
		return netns{}, nil
	}
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return netns{}, fmt.Errorf("keeping network namespace %d open: %w", fd, err)
	}
	return netns{os.NewFile(uintptr(kept), "netns")}, nil
}

// Close gives the namespace back. A second call does nothing.
func (n netns) Close() error {
	if n.file == nil {
		return nil
	}
	if err := n.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Do runs f on a thread that is inside the namespace. f must do its work on
// the calling goroutine. Sockets and processes that it makes stay inside.
func (n netns) Do(f func() error) error {
	if n.file == nil {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so that no other
		// goroutine ever runs inside the namespace.
		runtime.LockOSThread()
		if err := n.enter(); err != nil {
			result <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// enter moves the calling thread. It goes through Control because a client
// that outlives its server may come while Close runs, and must not meet the
// number of another file.
func (n netns) enter() error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	var entered error
	err = raw.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	return errors.Join(err, entered)
}
