// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	newEntry    = unix.NFNL_SUBSYS_CTNETLINK << 8
	tupleOrig   = 1
	tupleReply  = 2
	status      = 3
	timeout     = 7
	tupleIP     = 1
	tupleProto  = 2
	ipSrc       = 1
	ipDst       = 2
	protoNumber = 1
	protoSrc    = 2
	protoDst    = 3
	// established marks a flow that has seen a reply and lasts: the kernel does not evict it for a new one.
	established = 1<<1 | 1<<2 | 1<<3 // SEEN_REPLY, ASSURED, CONFIRMED
	// most bounds the entries made for a test; each takes some 300 bytes.
	most = 1 << 20
)

func attribute(kind uint16, value ...[]byte) []byte {
	b := binary.NativeEndian.AppendUint16(make([]byte, 2), kind)
	for _, v := range value {
		b = append(b, v...)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	return append(b, make([]byte, -len(b)&3)...)
}

func nested(kind uint16, value ...[]byte) []byte {
	return attribute(kind|unix.NLA_F_NESTED, value...)
}

// tuple is one direction of a flow of UDP.
func tuple(kind uint16, src, dst netip.AddrPort) []byte {
	return nested(kind,
		nested(tupleIP, attribute(ipSrc, src.Addr().AsSlice()), attribute(ipDst, dst.Addr().AsSlice())),
		nested(tupleProto, attribute(protoNumber, []byte{unix.IPPROTO_UDP}),
			attribute(protoSrc, binary.BigEndian.AppendUint16(nil, src.Port())),
			attribute(protoDst, binary.BigEndian.AppendUint16(nil, dst.Port()))))
}

// first is the source of the first flow that fills the table; the others count up from it, with port and
// address as one number.
const first = 198<<40 | 18<<32

// flow is a message that makes a flow for an hour, and the places of its source:
// address and port in one direction, and in the other.
func flow() (message []byte, places [4]int) {
	src, dst := netip.MustParseAddrPort("1.2.3.4:4660"), netip.MustParseAddrPort("198.19.0.1:9")
	body := append([]byte{unix.AF_INET, 0, 0, 0}, tuple(tupleOrig, src, dst)...)
	reply := len(body)
	body = append(body, tuple(tupleReply, dst, src)...)
	body = append(body, attribute(status, binary.BigEndian.AppendUint32(nil, established))...)
	body = append(body, attribute(timeout, binary.BigEndian.AppendUint32(nil, 3600))...)
	h := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	h = binary.NativeEndian.AppendUint16(h, newEntry)
	h = binary.NativeEndian.AppendUint16(h, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	message = append(append(h, make([]byte, 8)...), body...)
	for i, part := range [][]byte{{1, 2, 3, 4}, {0x12, 0x34}} {
		places[i] = bytes.Index(message, part)
		places[2+i] = 16 + reply + bytes.Index(body[reply:], part)
	}
	return message, places
}

// fill fills node1's connection table. The limit applies to the whole machine and only the first namespace
// may set it, but the entries of each namespace are counted separately.
func (w *world) fill(t *testing.T) {
	t.Helper()
	limit := w.table(t, "max")
	if limit > most {
		t.Skipf("the connection table holds %d entries, more than a test should make", limit)
	}
	stage.Check(t, w.NS(t, node1).Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		message, places := flow()
		var batch []byte
		for n := range limit { // flows beyond the limit are refused
			src := binary.BigEndian.AppendUint64(nil, first+n)[2:]
			for i := 0; i < 4; i += 2 {
				copy(message[places[i]:], src[:4])
				copy(message[places[i+1]:], src[4:])
			}
			if batch = append(batch, message...); len(batch) < 32<<10 && n < limit-1 {
				continue
			}
			if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return fmt.Errorf("making entries: %w", err)
			}
			batch = batch[:0]
		}
		return nil
	}))
	if n := w.table(t, "count"); n < limit {
		t.Fatalf("the table has %d of %d entries", n, limit)
	}
}

// table reads a number of node1's connection table: max or count.
func (w *world) table(t *testing.T, name string) (n uint64) {
	t.Helper()
	stage.Check(t, w.NS(t, node1).Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
		if err == nil {
			n, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		}
		return err
	}))
	return n
}

// knocks are first packets of new connections.
func (w *world) knocks(t *testing.T, v6 bool, ways ...[2]string) []stage.Shot {
	t.Helper()
	var list []stage.Shot
	for i, p := range ways {
		s := w.Raw(t, "SYN", p[0], p[1], packet.Packet{Dst: w.Addr(t, p[1], v6), Proto: packet.TCP, Flags: packet.SYN,
			SrcPort: 2000 + uint16(i), DstPort: 80, Window: 1000})
		send := s.Send
		s.Send = func() error {
			if err := send(); err != nil && !strings.Contains(err.Error(), unix.EPERM.Error()) {
				return err
			}
			return nil // the node's own packets are refused at once
		}
		list = append(list, s)
	}
	return list
}

// New connections do not pass, whether denied or allowed, and the node cannot reach its pods either.
// Existing connections continue.
func TestAFullConnectionTableOpensNothing(t *testing.T) {
	for _, tt := range []struct {
		datapath string
		wiring   lab.Wiring
	}{{"nat", lab.Routed}, {"filter", lab.Bridge}} {
		t.Run(tt.datapath+" "+string(tt.wiring), func(t *testing.T) {
			w := &world{stage.New(t, tt.wiring, stage.Setup{Args: []string{"--datapath=" + tt.datapath,
				"--iptables-sync-period=1s", "--metrics-port=20245"}})}
			var goesOn []func()
			for _, v6 := range []bool{false, true} {
				to := w.at(t, victim, v6, 80)
				client, server := w.connect(t, peer, to, w.listen(t, victim, to))
				goesOn = append(goesOn, func() { carries(t, client, server, 50_000); carries(t, server, client, 50_000) })
			}
			read := w.reader(t)
			w.fill(t)
			saysFull(t, read, true)
			for i, v6 := range []bool{false, true} {
				denied := w.knocks(t, v6, [2]string{near, victim}, [2]string{far, victim}, [2]string{jailed, open},
					[2]string{jailed, yonder})
				allowed := w.knocks(t, v6, [2]string{peer, victim}, [2]string{near, open}, [2]string{near, yonder},
					[2]string{node1, victim})
				lost := w.tracking(t, node1, "drop")
				w.Stopped(t, stage.Drops{}, append(denied, allowed...)...) // the kernel drops them before us
				if n := w.tracking(t, node1, "drop") - lost; n < 8 {
					t.Errorf("connection tracking dropped %d packets for want of room, want 8", n)
				}
				w.Arrive(t, w.knocks(t, v6, [2]string{far, yonder})...) // the other node has room
				goesOn[i]()
			}
			stage.Check(t, w.Handle(t, node1).ConntrackTableFlush(netlink.ConntrackTable))
			saysFull(t, read, false)
			for _, v6 := range []bool{false, true} {
				w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, node1, victim, v6, packet.TCP, 80),
					w.Ask(t, near, open, v6, packet.TCP, 80))
				w.Denied(t, ruleset.CounterIngress, w.Ask(t, near, victim, v6, packet.TCP, 80))
			}
		})
	}
}
