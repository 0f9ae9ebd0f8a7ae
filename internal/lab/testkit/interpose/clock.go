// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interpose

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the wall clock of a program: the machine's, put forward or back. The
// other clocks stay what they are.
type Clock struct{ ahead atomic.Int64 }

// Set puts the clock so far ahead of the machine's, or behind it.
func (c *Clock) Set(ahead time.Duration) { c.ahead.Store(int64(ahead)) }

// Clocks are the system calls that Answer is for.
func Clocks() []int { return []int{unix.SYS_CLOCK_GETTIME} }

// Answer tells the time.
func (c *Clock) Answer(call *Call) Answer {
	ahead := c.ahead.Load()
	if call.Args[0] != unix.CLOCK_REALTIME || ahead == 0 {
		return Pass()
	}
	now := time.Now().Add(time.Duration(ahead))
	b := binary.NativeEndian.AppendUint64(nil, uint64(now.Unix()))
	if err := call.Write(call.Args[1], binary.NativeEndian.AppendUint64(b, uint64(now.Nanosecond()))); err != nil {
		return Fail(unix.EFAULT)
	}
	return Return(0)
}

const (
	startStack = 28 // field of /proc/PID/stat, from 1
	auxIgnore  = 1
	auxVDSO    = 33
	maxStack   = 1 << 20 // of arguments and environment
)

// StartWithoutVDSO starts a program that has to ask the kernel for the time: the
// page with which programs read clocks by themselves is hidden from it. The
// calling goroutine is bound to its thread.
func StartWithoutVDSO(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true // so that it stops before its first instruction
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("waiting for the start of process %d: status %d, %w", pid, status, err)
	}
	if err := hideVDSO(pid); err != nil {
		_ = cmd.Process.Kill() // it must not run with the wrong clock
		return err
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return fmt.Errorf("letting process %d go: %w", pid, err)
	}
	return nil
}

// hideVDSO takes the entry out of the list that the kernel left on the stack,
// behind the arguments and the environment.
func hideVDSO(pid int) error {
	at, err := stackOf(pid)
	if err != nil {
		return err
	}
	call := Call{thread: pid}
	for ends, end := 0, at+maxStack; at < end; at += 8 {
		word, err := call.Word(at)
		switch {
		case err != nil:
			return err
		case ends < 2: // after the count of the arguments, two lists that end with 0
			if word == 0 {
				ends++
			}
		case word == auxVDSO:
			return call.Write(at, binary.NativeEndian.AppendUint64(nil, auxIgnore))
		case word == 0:
			return nil // there is none
		default:
			at += 8 // the value
		}
	}
	return fmt.Errorf("process %d has no end of its stack", pid)
}

func stackOf(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the state of process %d: %w", pid, err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < startStack-2 {
		return 0, fmt.Errorf("the state of process %d is %q", pid, text)
	}
	return strconv.ParseUint(fields[startStack-3], 10, 64)
}
