// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package interpose lets a test answer system calls in the kernel's place: of
// a thread of its own, or of a program that it starts. So a program meets
// faults and clocks that a machine cannot be given on purpose.
//
// It is used by tests alone. It stands between a process and the kernel, by
// seccomp's user notifications: a call is held until the test passes it on,
// fails it, or answers it by itself. It judges nothing, and it never touches a
// process that was not put under it.
package interpose

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that waits for its answer.
type Call struct {
	Number int
	Args   [6]uint64
	thread int
}

// Answer is what the caller gets.
type Answer struct {
	value int64
	errno unix.Errno
	pass  bool
}

// Pass lets the kernel answer.
func Pass() Answer { return Answer{pass: true} }

// Fail makes the call fail, without the kernel having seen it.
func Fail(e unix.Errno) Answer { return Answer{errno: e} }

// Return makes the call return a value, without the kernel having seen it.
func Return(value int64) Answer { return Answer{value: value} }

// Thread puts the calling thread, and whatever is started from it, under an
// interposer: answer is asked for each of the numbered calls, one at a time. The
// caller holds runtime.LockOSThread and never unlocks it. After stop, which waits
// for the last answer, these calls fail with ENOSYS.
func Thread(answer func(*Call) Answer, numbers ...int) (stop func(), err error) {
	var halt [2]int
	if err := unix.Pipe2(halt[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	code := program(numbers)
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return nil, errors.Join(fmt.Errorf("installing a filter of system calls: %w", errno), unix.Close(halt[0]),
			unix.Close(halt[1]))
	}
	unix.CloseOnExec(int(fd))
	var serving sync.WaitGroup
	serving.Go(func() {
		serve(int(fd), halt[0], answer)
		_, _ = unix.Close(int(fd)), unix.Close(halt[0]) // ours alone
	})
	return sync.OnceFunc(func() {
		_ = unix.Close(halt[1]) // serve sees the end
		serving.Wait()
	}), nil
}

// program asks the listener about the numbered calls and allows all others.
func program(numbers []int) []unix.SockFilter {
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the call's number
	for i, n := range numbers {
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n),
			Jt: uint8(len(numbers) - i)})
	}
	return append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
}

// request and response are the kernel's seccomp_notif and seccomp_notif_resp.
type request struct {
	id           uint64
	thread, _    uint32
	number, arch uint32
	_            uint64 // instruction pointer
	args         [6]uint64
}

type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// serve answers until the pipe's other end is closed, or nobody is left who
// could ask.
func serve(fd, halt int, answer func(*Call) Answer) {
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(halt), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if ready[1].Revents != 0 || ready[0].Revents&^unix.POLLIN != 0 {
			return
		}
		if ready[0].Revents == 0 {
			continue
		}
		var q request
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV,
			uintptr(unsafe.Pointer(&q))); errno != 0 {
			continue // the caller was interrupted meanwhile
		}
		a := answer(&Call{Number: int(q.number), Args: q.args, thread: int(q.thread)})
		r := response{id: q.id, value: a.value, errno: -int32(a.errno)}
		if a.pass {
			r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
		}
		// It fails when the caller has gone.
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	}
}

// Read reads the caller's memory.
func (c *Call) Read(at uint64, size int) ([]byte, error) {
	b := make([]byte, size)
	if size == 0 {
		return b, nil
	}
	n, err := unix.ProcessVMReadv(c.thread, []unix.Iovec{iovec(b)},
		[]unix.RemoteIovec{{Base: uintptr(at), Len: size}}, 0)
	if err != nil || n != size {
		return nil, fmt.Errorf("reading %d bytes of the caller: %d, %w", size, n, err)
	}
	return b, nil
}

// Write writes into the caller's memory.
func (c *Call) Write(at uint64, b []byte) error {
	n, err := unix.ProcessVMWritev(c.thread, []unix.Iovec{iovec(b)},
		[]unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err != nil || n != len(b) {
		return fmt.Errorf("writing %d bytes to the caller: %d, %w", len(b), n, err)
	}
	return nil
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// Word reads a number of 64 bits from the caller's memory.
func (c *Call) Word(at uint64) (uint64, error) {
	b, err := c.Read(at, 8)
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b), nil
}

// File returns a descriptor of our own for one of the caller's.
func (c *Call) File(number uint64) (int, error) {
	process, err := c.process()
	if err != nil {
		return -1, err
	}
	pidfd, err := unix.PidfdOpen(process, 0)
	if err != nil {
		return -1, fmt.Errorf("opening process %d: %w", process, err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(int32(number)), 0)
	if err != nil {
		return -1, fmt.Errorf("taking descriptor %d of process %d: %w", number, process, err)
	}
	return fd, nil
}

// process returns the caller's process: only threads are named by the kernel.
func (c *Call) process() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.thread))
	if err != nil {
		return 0, fmt.Errorf("looking for the process of thread %d: %w", c.thread, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "Tgid:"); found {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("thread %d has no process", c.thread)
}
