// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below go to the kernel directly. The usual ones tell the Go
// scheduler first, whose work would be counted.

// priority is that of the thread among those of real time; any would do.
const priority = 5

// settle binds the thread to the last CPU that it may use, the one with the
// least interrupts on most machines, and asks for real time priority.
func settle() (realTime bool, err error) {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return false, fmt.Errorf("asking for the usable CPUs: %w", err)
	}
	for i := range 1024 {
		if may.IsSet(i) {
			one.Zero()
			one.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return false, fmt.Errorf("binding the thread to a CPU: %w", err)
	}
	err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO,
		Priority: priority}, 0)
	return err == nil, nil
}

// cpuTime is what the thread has used so far, in nanoseconds.
func cpuTime() int64 {
	var t unix.Timespec
	// cannot fail
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

// inside runs f with the thread in the network namespace of the file. The thread
// stays there: all that matters is where sockets are made.
func inside(file string, f func() error) error {
	ns, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	return f()
}

// addr is a socket address of either family, as the kernel wants it.
type addr struct {
	family int
	port   uint16
	v4     unix.RawSockaddrInet4
	v6     unix.RawSockaddrInet6
}

func newAddr(a netip.AddrPort) *addr {
	port := [2]byte{byte(a.Port() >> 8), byte(a.Port())}
	order := *(*uint16)(unsafe.Pointer(&port))
	if a.Addr().Is4() {
		return &addr{family: unix.AF_INET, port: a.Port(), v4: unix.RawSockaddrInet4{Family: unix.AF_INET, Port: order,
			Addr: a.Addr().As4()}}
	}
	return &addr{family: unix.AF_INET6, port: a.Port(), v6: unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: order,
		Addr: a.Addr().As16()}}
}

// bare is the address for a raw socket, where the port of an address means a protocol.
func (a *addr) bare() *addr {
	b := *a
	b.v4.Port, b.v6.Port = 0, 0
	return &b
}

func (a *addr) raw() (unsafe.Pointer, uintptr) {
	if a.family == unix.AF_INET {
		return unsafe.Pointer(&a.v4), unix.SizeofSockaddrInet4
	}
	return unsafe.Pointer(&a.v6), unix.SizeofSockaddrInet6
}

// errShort is the error of a call that took fewer bytes than asked.
var errShort = errors.New("not all bytes went through")

func failed(what string, errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", what, errno)
}

func socket(family, kind, protocol int) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), uintptr(kind|unix.SOCK_CLOEXEC),
		uintptr(protocol))
	return int(fd), failed("making a socket", errno)
}

func connect(fd int, a *addr) error {
	p, size := a.raw()
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(p), size)
	return failed("connecting", errno)
}

func bind(fd int, a *addr) error {
	p, size := a.raw()
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(p), size)
	return failed("binding", errno)
}

func accept(fd int) (int, error) {
	s, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	return int(s), failed("accepting", errno)
}

func send(fd int, b []byte) error {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_NOSIGNAL, 0, 0)
	if errno == 0 && int(n) != len(b) {
		return errShort
	}
	return failed("sending", errno)
}

// receive reads what is there, at most one buffer, and waits for the first byte
// only. It returns 0 when the other side has closed.
func receive(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		0, 0, 0)
	return int(n), failed("receiving", errno)
}

func shut(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return failed("closing", errno)
}

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// parcel is a number of datagrams that one call sends.
type parcel struct {
	messages []message
	vectors  []unix.Iovec
	buffers  [][]byte
}

// parcelSize is large enough that the call itself does not count.
const parcelSize = 64

func newParcel(size int) *parcel {
	p := &parcel{make([]message, parcelSize), make([]unix.Iovec, parcelSize), make([][]byte, parcelSize)}
	for i := range p.messages {
		p.buffers[i] = make([]byte, size)
		p.vectors[i].Base = &p.buffers[i][0]
		p.vectors[i].SetLen(size)
		p.messages[i].header.Iov = &p.vectors[i]
		p.messages[i].header.SetIovlen(1)
	}
	return p
}

// address has a datagram go to an address, without a port.
func (p *parcel) address(i int, to *addr) {
	name, size := to.raw()
	p.messages[i].header.Name, p.messages[i].header.Namelen = (*byte)(name), uint32(size)
}

// send sends n of the datagrams, n <= parcelSize, and returns how many went out.
// What the kernel refuses (a full buffer, a policy that the sender is told of) is
// counted by the caller.
func (p *parcel) send(fd, n int) (int, error) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.messages[0])),
		uintptr(n), 0, 0, 0)
	return int(sent), failed("sending", errno)
}
