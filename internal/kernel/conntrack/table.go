// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// Dump calls take for the entries of one family, or of both if f is 0. The table may change during the
// dump: entries added or deleted in that time may be missing or present. take must not keep the pointer.
func (c *Conn) Dump(f inet.Family, take func(*inet.Connection)) error {
	return c.dump(c.begin(msgGet, unix.NLM_F_DUMP, f), take)
}

// DumpAddress calls take for the entries in which the address is the source of the original or of the reply
// direction; the kernel filters the others. An entry may be passed twice. It needs kernel 5.8.
func (c *Conn) DumpAddress(a netip.Addr, take func(*inet.Connection)) error {
	for _, side := range []struct{ tuple, flags uint16 }{{attrOrig, filterOrig}, {attrReply, filterReply}} {
		b := c.begin(msgGet, unix.NLM_F_DUMP, inet.FamilyOf(a))
		b = nested(b, side.tuple, func(b []byte) []byte { return addresses(b, inet.Tuple{Src: a}) })
		b = nested(b, attrFilter, func(b []byte) []byte {
			return attr(b, side.flags, binary.NativeEndian.AppendUint32(nil, filterSource)...)
		})
		if err := c.dump(end(b, 0), take); err != nil {
			return err
		}
	}
	return nil
}

// DumpProtocol calls take for the entries of one family and protocol; the kernel filters the others. It needs
// kernel 5.8.
func (c *Conn) DumpProtocol(f inet.Family, p inet.Protocol, take func(*inet.Connection)) error {
	b := c.begin(msgGet, unix.NLM_F_DUMP, f)
	b = nested(b, attrOrig, func(b []byte) []byte {
		return nested(b, tupleProto, func(b []byte) []byte { return attr(b, protoNum, byte(p)) })
	})
	b = nested(b, attrFilter, func(b []byte) []byte {
		return attr(b, filterOrig, binary.NativeEndian.AppendUint32(nil, filterProtocol)...)
	})
	return c.dump(end(b, 0), take)
}

func (c *Conn) dump(request []byte, take func(*inet.Connection)) error {
	if err := c.send(request); err != nil {
		return err
	}
	var e inet.Connection
	err := c.answers(func(_ uint16, body []byte) error {
		if decode(body, &e) {
			take(&e)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("dumping the connection table: %w", err)
	}
	return nil
}

// deleteBatch is the number of deletions per request. Their answers must fit into the socket buffer.
const deleteBatch = 64

// Delete deletes entries and returns how many of them still existed. An entry that is gone, or was replaced
// by another with the same tuple, is no error.
func (c *Conn) Delete(list []inet.Connection) (deleted int, err error) {
	for len(list) > 0 {
		n := min(deleteBatch, len(list))
		done, failed := c.deleteSome(list[:n])
		deleted, err, list = deleted+done, errors.Join(err, failed), list[n:]
		if failed != nil {
			return deleted, fmt.Errorf("deleting from the connection table: %w", err)
		}
	}
	return deleted, nil
}

func (c *Conn) deleteSome(list []inet.Connection) (deleted int, err error) {
	first := c.seq + 1
	c.out = c.out[:0]
	for _, e := range list {
		if !e.Orig.Src.IsValid() || !e.Orig.Dst.IsValid() {
			return 0, errors.New("an entry has no addresses") // the kernel would delete everything
		}
		start := len(c.out)
		b := c.append(msgDelete, unix.NLM_F_ACK, inet.FamilyOf(e.Orig.Src))
		b = tuple(b, attrOrig, e.Protocol, e.Orig)
		if e.Zone != 0 {
			b = attr(b, attrZone, number(e.Zone)...)
		}
		c.out = end(attr(b, attrID, e.ID[:]...), start)
	}
	if err := c.send(c.out); err != nil {
		return 0, err
	}
	return c.acknowledged(first, len(list))
}

// acknowledged waits for one answer to each of n messages.
func (c *Conn) acknowledged(first uint32, n int) (succeeded int, err error) {
	for left := n; left > 0; {
		size, _, failed := unix.Recvfrom(c.fd, c.buffer, 0)
		if errors.Is(failed, unix.EINTR) {
			continue
		}
		if failed != nil {
			return succeeded, failed
		}
		for b := c.buffer[:size]; len(b) >= unix.NLMSG_HDRLEN; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return succeeded, errors.New("the kernel's answer is cut off")
			}
			kind, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
			if kind == unix.NLMSG_ERROR && seq-first < uint32(n) {
				left--
				switch failed := errorOf(b[unix.NLMSG_HDRLEN:length]); {
				case failed == nil:
					succeeded++
				case !errors.Is(failed, unix.ENOENT):
					err = errors.Join(err, failed)
				}
			}
			b = b[min(align(length), len(b)):]
		}
	}
	return succeeded, err
}
