// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package conntrack reads the kernel's connection table and deletes single entries, over netlink and in the
// network namespace of the thread that opened the connection.
//
// It is an edge: datapath uses it to list connections, and package cut decides which of them must end. It
// holds no state: a dump passes entries one by one out of the receive buffer, so a table of 200,000 entries
// costs no memory. It deletes only the entries that it is given, and never flushes the table.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Conn is a connection to the connection table of one network namespace. One goroutine uses it at a time.
type Conn struct {
	fd     int
	seq    uint32
	buffer []byte
	out    []byte
}

// bufferSize exceeds the size of one answer of the kernel (32 KiB).
const bufferSize = 64 << 10

// answerTimeout bounds the wait for the kernel's next answer, which normally comes at once.
const answerTimeout = 10 // seconds

// Open connects to the connection table of the network namespace of the calling
// thread.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	c := &Conn{fd: fd, buffer: make([]byte, bufferSize)}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout}),
		// An error need not repeat the request.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing a netlink socket: %w", err), unix.Close(fd))
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	if err := unix.Close(c.fd); err != nil {
		return fmt.Errorf("closing a netlink socket: %w", err)
	}
	return nil
}

// Count returns the number of entries in the table, and its maximum.
func (c *Conn) Count() (entries, limit uint32, err error) {
	m := c.begin(msgGetStats, 0, 0)
	if err := c.send(m); err != nil {
		return 0, 0, err
	}
	err = c.answers(func(kind uint16, body []byte) error {
		for a := range attributes(body[min(genHeader, len(body)):]) {
			switch {
			case len(a.data) < 4:
			case a.kind == attrStatsEntries:
				entries = binary.BigEndian.Uint32(a.data)
			case a.kind == attrStatsMax:
				limit = binary.BigEndian.Uint32(a.data)
			}
		}
		return errDone
	})
	if err != nil {
		return 0, 0, fmt.Errorf("counting the connection table: %w", err)
	}
	return entries, limit, nil
}

// errDone ends the wait for answers.
var errDone = errors.New("done")

// send sends the messages written since begin.
func (c *Conn) send(messages []byte) error {
	if err := unix.Sendto(c.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to conntrack: %w", err)
	}
	return nil
}

// answers calls take for each message of the kernel's answer until take or the kernel returns an error, or
// the dump ends. errDone is no error. The body is valid only during the call.
func (c *Conn) answers(take func(kind uint16, body []byte) error) error {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		if err := c.messages(c.buffer[:n], take); err != nil {
			if errors.Is(err, errDone) {
				return nil
			}
			return err
		}
	}
}

func (c *Conn) messages(b []byte, take func(kind uint16, body []byte) error) error {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return errors.New("the kernel's answer is cut off")
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:size]
		seq := binary.NativeEndian.Uint32(b[8:])
		b = b[min(align(size), len(b)):]
		switch {
		case seq != c.seq: // the rest of an earlier, abandoned answer
			continue
		case kind == unix.NLMSG_DONE:
			return errors.Join(errorOf(body), errDone)
		case kind == unix.NLMSG_ERROR:
			if err := errorOf(body); err != nil {
				return err
			}
			return errDone
		}
		if err := take(kind, body); err != nil {
			return err
		}
	}
	return nil
}

// errorOf reads the error code at the start of an error message or of the end of a dump.
func errorOf(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}
