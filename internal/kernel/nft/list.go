// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// lister lists the elements of large sets, on a connection of its own. For each message of a listing the
// kernel walks the set again from its beginning, and it fills a message up to the size of the receive
// buffer: with 64 KiB instead of a page, listing a million elements takes a tenth of the time. Elements are
// read without allocations.
type lister struct {
	nl     *netlink.Conn
	raw    syscall.RawConn
	buffer []byte
	portID uint32
}

// listBuffer is the size of the receive buffer. The kernel uses up to 32 KiB.
const listBuffer = 1 << 16

// NFTA_SET_COUNT, since kernel 6.16, is the number of elements of a set.
const attrSetCount = 20

func openLister(netns int) (*lister, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables for listings: %w", err)
	}
	raw, err := nl.SyscallConn()
	if err != nil {
		_ = nl.Close()
		return nil, fmt.Errorf("connecting to nftables for listings: %w", err)
	}
	port, err := portOf(raw)
	if err != nil {
		_ = nl.Close()
		return nil, fmt.Errorf("asking for the netlink port of listings: %w", err)
	}
	return &lister{nl: nl, raw: raw, portID: port}, nil
}

// portOf returns the netlink port of a socket.
func portOf(raw syscall.RawConn) (port uint32, err error) {
	failed := raw.Control(func(fd uintptr) {
		var at unix.Sockaddr
		if at, err = unix.Getsockname(int(fd)); err == nil {
			port = at.(*unix.SockaddrNetlink).Pid //nolint:forcetypeassert // of a netlink socket
		}
	})
	return port, errors.Join(failed, err)
}

// counts returns the number of elements of each set of a table, by name. Sets are missing if the kernel
// does not report it.
func (l *lister) counts(t *nftables.Table) (map[string]int, error) {
	found := map[string]int{}
	err := l.dump(unix.NFT_MSG_GETSET, byte(t.Family), attribute(nil, unix.NFTA_SET_TABLE, t.Name), func(b []byte) {
		name, count := "", -1
		for kind, data, rest, ok := nextAttribute(b); ok; kind, data, rest, ok = nextAttribute(rest) {
			switch {
			case kind == unix.NFTA_SET_NAME && len(data) > 0:
				name = string(data[:len(data)-1])
			case kind == attrSetCount && len(data) == 4:
				count = int(binary.BigEndian.Uint32(data))
			}
		}
		if count >= 0 {
			found[name] = count
		}
	})
	return found, err
}

// elements calls f for each element of a set, with its key and its value, which are valid only during the
// call, and whether it is the end of an interval.
func (l *lister) elements(t *nftables.Table, set string, f func(key, value []byte, end bool)) error {
	request := attribute(attribute(nil, unix.NFTA_SET_ELEM_LIST_TABLE, t.Name), unix.NFTA_SET_ELEM_LIST_SET, set)
	return l.dump(unix.NFT_MSG_GETSETELEM, byte(t.Family), request, func(b []byte) {
		for kind, list, rest, ok := nextAttribute(b); ok; kind, list, rest, ok = nextAttribute(rest) {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, e, rest, ok := nextAttribute(list); ok; _, e, rest, ok = nextAttribute(rest) {
				f(element(e))
			}
		}
	})
}

// element decodes one element.
func element(b []byte) (key, value []byte, end bool) {
	for kind, data, rest, ok := nextAttribute(b); ok; kind, data, rest, ok = nextAttribute(rest) {
		switch {
		case kind == unix.NFTA_SET_ELEM_KEY:
			_, key, _, _ = nextAttribute(data)
		case kind == unix.NFTA_SET_ELEM_DATA:
			_, value, _, _ = nextAttribute(data)
		case kind == unix.NFTA_SET_ELEM_FLAGS && len(data) == 4:
			end = binary.BigEndian.Uint32(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	}
	return key, value, end
}

// dump requests a listing and calls f with the attributes of each answer.
func (l *lister) dump(kind int, family byte, request []byte, f func(b []byte)) error {
	if l.buffer == nil {
		l.buffer = make([]byte, listBuffer)
		defer func() { l.buffer = nil }() // listings are rare
	}
	sent, err := l.nl.Send(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{family, 0, 0, 0}, request...),
	})
	if err != nil {
		return err
	}
	for {
		b, err := l.receive()
		if err != nil {
			return err
		}
		if done, err := answers(b, sent.Header.Sequence, f); done || err != nil {
			return err
		}
	}
}

// answers calls f for each answer in a datagram. done is true after the last one.
func answers(b []byte, sequence uint32, f func(b []byte)) (done bool, err error) {
	const header, general = unix.SizeofNlMsghdr, 4 // nlmsghdr and nfgenmsg
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint32(b))
		if size < header || size > len(b) {
			return false, fmt.Errorf("a netlink message of %d bytes in %d", size, len(b))
		}
		kind, of, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[header:size]
		b = b[min(len(b), align(size)):]
		switch {
		case of != sequence: // belongs to an abandoned listing
		case kind == unix.NLMSG_DONE:
			return true, failure(body)
		case kind == unix.NLMSG_ERROR:
			return true, failure(body)
		case len(body) >= general:
			f(body[general:])
		}
	}
	return false, nil
}

// failure reads the error number at the end of a listing; 0 means success.
func failure(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if number := int32(binary.NativeEndian.Uint32(body)); number != 0 {
		return unix.Errno(-number)
	}
	return nil
}

// receive waits for the next datagram, which is valid until the next call.
func (l *lister) receive() ([]byte, error) {
	var n int
	var failed error
	err := l.raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = unix.Recvfrom(int(fd), l.buffer, unix.MSG_TRUNC)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	case n > len(l.buffer):
		return nil, fmt.Errorf("a netlink datagram of %d bytes", n)
	}
	return l.buffer[:n], nil
}

// nextAttribute takes the first attribute off a list. ok is false if the list is empty or truncated.
func nextAttribute(b []byte) (kind uint16, data, rest []byte, ok bool) {
	const header = unix.SizeofNlAttr
	if len(b) < header {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < header || size > len(b) {
		return 0, nil, nil, false
	}
	kind = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return kind, b[header:size], b[min(len(b), align(size)):], true
}

// attribute appends a string attribute.
func attribute(b []byte, kind uint16, text string) []byte {
	size := unix.SizeofNlAttr + len(text) + 1
	b = binary.NativeEndian.AppendUint16(b, uint16(size))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(append(b, text...), 0)
	return append(b, make([]byte, align(size)-size)...)
}

func align(n int) int { return (n + 3) &^ 3 }
