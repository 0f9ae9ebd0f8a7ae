// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package nflog receives the packets that nftables gives to an NFLOG group, over netlink
// and in the network namespace of the thread that opened the listener.
//
// It is an edge and knows no ruleset: what a packet means follows from its prefix. It
// never blocks the kernel: packets that do not fit into the socket are lost, and counted.
package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrTaken is about a group to which another program listens. The kernel gives the same
// answer to a program without CAP_NET_ADMIN.
var ErrTaken = errors.New("another program listens to the group, or CAP_NET_ADMIN is missing")

// Packet is one packet.
type Packet struct {
	// Prefix is that of the log statement.
	Prefix string
	// Payload begins with the network header. It is cut after as many bytes as the log
	// statement and the listener say.
	Payload []byte
	// In and Out are the indexes of the interfaces, 0 for none.
	In, Out int
	// Original is the destination of the packet's connection before any translation. It is the zero value if the
	// connection is not tracked, for packets of the other direction, and if Listener.Originals is false.
	Original netip.AddrPort
}

// The numbers of linux/netfilter/nfnetlink_log.h.
const (
	subsystem  = 4 << 8 // NFNL_SUBSYS_ULOG
	msgPacket  = subsystem
	msgConfig  = subsystem | 1
	cfgCommand = 1
	cfgMode    = 2
	cfgBuffer  = 3
	cfgTimeout = 4
	cfgFlags   = 6

	commandBind = 1
	copyPacket  = 2
	flagSeq     = 1
	flagEntry   = 4 // the packet's entry of the connection table comes with it

	attrIn      = 4
	attrOut     = 5
	attrPayload = 9
	attrPrefix  = 10
	attrSeq     = 12
	attrEntry   = 18
	attrState   = 19

	header = 4 // nfgenmsg: family, version, group
)

// How the kernel gathers packets: it sends what it has after so many hundredths of a
// second, or so many bytes.
const (
	gatherTime  = 10
	gatherBytes = 32 << 10
	// socketBuffer holds some 1,000 packets while the program is busy.
	socketBuffer = 1 << 20
)

// Listener receives the packets of one group. One goroutine uses it; Close may be called
// by another one.
type Listener struct {
	conn *netlink.Conn
	next uint32 // sequence number of the next packet
	seen bool
	lost uint64
	// originals is true if packets come with their entries of the connection table.
	originals bool
}

// Listen begins to receive the packets of a group, up to so many bytes of each. The error
// wraps ErrTaken if another program does.
func Listen(group uint16, bytes uint32) (*Listener, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	l := &Listener{conn: conn}
	if err := errors.Join(conn.SetReadBuffer(socketBuffer), l.bind(group, bytes)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := l.setFlags(group); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// setFlags asks for entries of the connection table too. A kernel without CONFIG_NETFILTER_NETLINK_GLUE_CT refuses
// that: packets come alone then.
func (l *Listener) setFlags(group uint16) error {
	err := l.configure(group, netlink.Attribute{Type: cfgFlags,
		Data: binary.BigEndian.AppendUint16(nil, flagSeq|flagEntry)})
	if l.originals = err == nil; l.originals || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAGAIN) {
		return err
	}
	return l.configure(group, netlink.Attribute{Type: cfgFlags, Data: binary.BigEndian.AppendUint16(nil, flagSeq)})
}

// Originals reports whether the kernel tells where connections were sent at first.
func (l *Listener) Originals() bool { return l.originals }

func (l *Listener) bind(group uint16, bytes uint32) error {
	mode := append(binary.BigEndian.AppendUint32(nil, bytes), copyPacket, 0)
	if err := l.configure(group, netlink.Attribute{Type: cfgCommand, Data: []byte{commandBind}}); err != nil {
		return err
	}
	return l.configure(group, netlink.Attribute{Type: cfgMode, Data: mode},
		netlink.Attribute{Type: cfgBuffer, Data: binary.BigEndian.AppendUint32(nil, gatherBytes)},
		netlink.Attribute{Type: cfgTimeout, Data: binary.BigEndian.AppendUint32(nil, gatherTime)})
}

func (l *Listener) configure(group uint16, attributes ...netlink.Attribute) error {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		return fmt.Errorf("writing a request: %w", err)
	}
	body := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, group)
	_, err = l.conn.Execute(netlink.Message{Header: netlink.Header{Type: msgConfig,
		Flags: netlink.Request | netlink.Acknowledge}, Data: append(body, data...)})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		err = ErrTaken
	}
	if err != nil {
		return fmt.Errorf("listening to NFLOG group %d: %w", group, err)
	}
	return nil
}

// Receive waits until packets come and returns them. It returns none at the deadline. The
// error after Close wraps os.ErrClosed.
func (l *Listener) Receive(deadline time.Time) ([]Packet, error) {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("receiving packets: %w", err)
	}
	messages, err := l.conn.Receive()
	switch {
	case errors.Is(err, unix.ENOBUFS): // the next sequence number says how many
		return nil, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("receiving packets: %w", err)
	}
	var list []Packet
	for _, m := range messages {
		if m.Header.Type != msgPacket || len(m.Data) < header {
			continue
		}
		p, err := l.packet(m.Data[header:])
		if err != nil {
			return list, fmt.Errorf("reading a packet: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

func (l *Listener) packet(data []byte) (p Packet, err error) {
	a, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return p, err
	}
	a.ByteOrder = binary.BigEndian
	var first original
	for a.Next() {
		switch a.Type() {
		case attrIn:
			p.In = int(a.Uint32())
		case attrOut:
			p.Out = int(a.Uint32())
		case attrPayload:
			p.Payload = a.Bytes()
		case attrPrefix:
			p.Prefix = a.String()
		case attrSeq:
			l.count(a.Uint32())
		case attrEntry:
			first.read(a.Bytes())
		case attrState:
			first.reply = a.Uint32() >= firstReply
		}
	}
	p.Original = first.destination()
	return p, a.Err()
}

// count finds packets that are missing between two sequence numbers.
func (l *Listener) count(seq uint32) {
	if l.seen {
		l.lost += uint64(seq - l.next)
	}
	l.next, l.seen = seq+1, true
}

// Lost returns how many packets did not fit into the socket. It is known when a later one
// has come.
func (l *Listener) Lost() uint64 { return l.lost }

// Close ends the listener, and a Receive that waits.
func (l *Listener) Close() error {
	if err := l.conn.Close(); err != nil {
		return fmt.Errorf("closing a netlink socket: %w", err)
	}
	return nil
}
