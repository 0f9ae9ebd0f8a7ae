// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interpose

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Kind is where a fault of netlink happens.
type Kind uint8

// The kinds. Sending and receiving fail in the call itself. A refused request
// reaches the kernel as one that it cannot take; its answer, which comes back
// on the same way, has the fault's error number. A torn answer ends in the middle.
const (
	Sending Kind = iota
	Receiving
	Refused
	Torn
)

// Fault is what happens to a call on a netlink socket.
type Fault struct {
	Kind  Kind
	Errno unix.Errno
}

// String names the fault.
func (f Fault) String() string {
	kind := [...]string{"sending", "receiving", "refused", "torn"}[f.Kind]
	if f.Kind == Torn {
		return kind
	}
	return kind + " " + unix.ErrnoName(f.Errno)
}

// Faults are all that a healthy program has to bear: what the kernel says when it
// is short of memory or busy, or when a signal comes in between.
func Faults() []Fault {
	list := []Fault{{Kind: Torn}}
	for _, e := range []unix.Errno{unix.ENOBUFS, unix.ENOMEM, unix.EINTR} {
		list = append(list, Fault{Sending, e}, Fault{Receiving, e})
	}
	for _, e := range []unix.Errno{unix.EBUSY, unix.ENOMEM, unix.ENOSPC, unix.ENOBUFS, unix.EINTR, unix.EAGAIN} {
		list = append(list, Fault{Refused, e})
	}
	return list
}

// Netlink makes calls on netlink sockets fail. The zero value lets all pass.
type Netlink struct {
	// Every says that only every so-maniest of the calls fails; 0 is all. A reader
	// may go on until it has read what is there: if it never can, neither ends. It
	// is set before Strike.
	Every int
	// Only is what a message that is sent must contain for its call to fail; empty for any. It is set
	// before Strike.
	Only []byte

	mu       sync.Mutex // guards everything below
	fault    Fault
	from, to int // which calls of the fault's direction, counted from 0
	family   int // of netlink, or any if negative
	seen     int
	struck   int
	nacks    map[uint64]unix.Errno // by the caller's descriptor: the next answer has it
	broken   error
}

// NetlinkCalls are the system calls that Answer is for.
func NetlinkCalls() []int {
	return []int{unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDTO, unix.SYS_RECVFROM}
}

// Strike makes calls from..to-1 of those that the fault concerns fail, counted
// from now, on sockets of one netlink family or of any if it is negative.
func (n *Netlink) Strike(f Fault, family, from, to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault, n.family, n.from, n.to, n.seen, n.struck = f, family, from, to, 0, 0
	n.nacks = map[uint64]unix.Errno{}
}

// Heal lets all calls pass. It returns how many the fault concerned since Strike
// and how many of them it struck, and what went wrong with the tool itself.
func (n *Netlink) Heal() (seen, struck int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.to = 0
	return n.seen, n.struck, n.broken
}

// Answer answers a call.
func (n *Netlink) Answer(c *Call) Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.to == 0 && len(n.nacks) == 0 {
		return Pass()
	}
	a, err := n.answer(c)
	if err != nil {
		n.broken = err
		return Pass()
	}
	return a
}

func (n *Netlink) answer(c *Call) (Answer, error) {
	fd, err := c.File(c.Args[0])
	if err != nil {
		return Pass(), nil // no descriptor that is open; the kernel says so
	}
	defer unix.Close(fd)
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_NETLINK {
		return Pass(), nil
	}
	if family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || n.family >= 0 &&
		family != n.family {
		return Pass(), nil
	}
	m, err := c.message()
	if err != nil {
		return Pass(), err
	}
	if m.sends {
		delete(n.nacks, c.Args[0]) // the answer that was waited for never came
	}
	if errno, waits := n.nacks[c.Args[0]]; waits {
		if m.peeks {
			return Pass(), nil
		}
		delete(n.nacks, c.Args[0])
		return m.receive(c, fd, func(b []byte) []byte { return nacked(b, errno) })
	}
	if m.sends != (n.fault.Kind == Sending || n.fault.Kind == Refused) || n.fault.Kind == Torn && m.peeks || n.to == 0 {
		return Pass(), nil
	}
	if n.fault.Errno == unix.EINTR && n.fault.Kind != Refused && !waits(fd) {
		return Pass(), nil
	}
	if m.sends && len(n.Only) > 0 {
		if b, err := c.Read(m.at, m.size); err != nil || !bytes.Contains(b, n.Only) {
			return Pass(), err
		}
	}
	n.seen++
	if at := n.seen - 1; at < n.from || at >= n.to || at%max(n.Every, 1) != 0 {
		return Pass(), nil
	}
	n.struck++
	switch n.fault.Kind {
	case Refused:
		n.nacks[c.Args[0]] = n.fault.Errno
		return m.refuse(c, fd)
	case Torn:
		return m.receive(c, fd, func(b []byte) []byte { return b[:len(b)-lost] })
	}
	return Fail(n.fault.Errno), nil
}

// lost is how much is missing at the end of a torn answer.
const lost = 4

// waits reports whether calls on a descriptor may sleep.
func waits(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_NONBLOCK == 0
}

// message is a call that sends or receives.
type message struct {
	sends, peeks bool
	at           uint64 // the caller's buffer
	size         int
	flags        int
	header       uint64 // of sendmsg and recvmsg; 0 for the other two
	name         uint64 // where recvfrom wants the sender, and the length of that
	length       uint64
}

// The offsets of struct msghdr, on machines of 64 bits.
const (
	headerLength, headerVectors, headerControl, headerFlags = 8, 16, 40, 48
)

func (c *Call) message() (m message, err error) {
	switch c.Number {
	case unix.SYS_SENDTO, unix.SYS_RECVFROM:
		m = message{sends: c.Number == unix.SYS_SENDTO, at: c.Args[1], size: int(c.Args[2]), flags: int(c.Args[3]),
			name: c.Args[4], length: c.Args[5]}
	case unix.SYS_SENDMSG, unix.SYS_RECVMSG:
		m = message{sends: c.Number == unix.SYS_SENDMSG, header: c.Args[1], flags: int(c.Args[2])}
		vector, failed := c.Word(m.header + headerVectors)
		if failed != nil {
			return m, failed
		}
		if m.at, err = c.Word(vector); err != nil {
			return m, err
		}
		size, failed := c.Word(vector + 8)
		if failed != nil {
			return m, failed
		}
		m.size = int(size)
	}
	m.peeks = !m.sends && m.flags&unix.MSG_PEEK != 0
	return m, nil
}

// noSuchType is a type of message that no netlink family knows, below the
// subsystem that is in the high byte.
const noSuchType = 0xff

// refuse sends what the caller wants to send, with the type of its first request
// made an unknown one. A batch's opening stays.
func (m message) refuse(c *Call, fd int) (Answer, error) {
	b, err := c.Read(m.at, m.size)
	if err != nil {
		return Pass(), err
	}
	at := 0
	if binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_MSG_BATCH_BEGIN {
		at = int(binary.NativeEndian.Uint32(b))
	}
	if len(b) < at+unix.NLMSG_HDRLEN {
		return Pass(), fmt.Errorf("a message of %d bytes has no request", len(b))
	}
	b[at+4] = noSuchType
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Pass(), fmt.Errorf("sending in the caller's place: %w", err)
	}
	return Return(int64(m.size)), nil
}

// nacked gives the errors in an answer another number.
func nacked(b []byte, errno unix.Errno) []byte {
	for rest := b; len(rest) >= unix.NLMSG_HDRLEN+4; {
		size := int(binary.NativeEndian.Uint32(rest))
		kind := binary.NativeEndian.Uint16(rest[4:])
		if code := rest[unix.NLMSG_HDRLEN:]; kind == unix.NLMSG_ERROR && binary.NativeEndian.Uint32(code) != 0 {
			binary.NativeEndian.PutUint32(code, uint32(-int32(errno)))
		}
		size = (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		if size < unix.NLMSG_HDRLEN || size > len(rest) {
			break
		}
		rest = rest[size:]
	}
	return b
}

// receive receives in the caller's place and changes what it gets.
func (m message) receive(c *Call, fd int, change func([]byte) []byte) (Answer, error) {
	b := make([]byte, m.size)
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
	if err != nil {
		return Pass(), nil // nothing is there; it may wait
	}
	b = change(b[:n])
	if len(b) > 0 {
		err = c.Write(m.at, b)
	}
	zero := make([]byte, 8)
	sender := binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK)
	sender = append(sender, make([]byte, unix.SizeofSockaddrNetlink-len(sender))...) // the kernel
	if err == nil && m.header != 0 {
		if m.name, err = c.Word(m.header); err == nil {
			m.length = m.header + headerLength
			for _, at := range []uint64{headerControl, headerFlags} {
				if err == nil {
					err = c.Write(m.header+at, zero[:len(zero)/int(1+at/headerFlags)])
				}
			}
		}
	}
	if err == nil && m.name != 0 {
		if err = c.Write(m.name, sender); err == nil {
			err = c.Write(m.length, binary.NativeEndian.AppendUint32(nil, unix.SizeofSockaddrNetlink))
		}
	}
	return Return(int64(len(b))), err
}
