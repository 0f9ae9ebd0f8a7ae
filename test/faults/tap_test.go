// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
)

// The marks of the packets that must never arrive: the window of a SYN, and the
// first word of a datagram.
const (
	markWindow = 0x7066
	markWord   = 0x70776c66
)

// arrival is a marked packet that was seen inside a pod.
type arrival struct {
	at   time.Time // as the kernel took it, by the wall clock
	what string
}

// tap sees every packet that enters a pod before the pod does, and keeps the marked ones.
type tap struct {
	name string
	fd   int
	done sync.WaitGroup

	mu   sync.Mutex
	seen []arrival
	stop bool
}

func newTap(t *testing.T, name string, ns *netns.NS) *tap {
	t.Helper()
	p := &tap{name: name, fd: -1}
	check(t, ns.Do(p.open))
	p.done.Go(p.read)
	t.Cleanup(p.close)
	return p
}

func (p *tap) open() (err error) {
	if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return errors.Join(err, unix.Close(p.fd))
	}
	pause := unix.Timeval{Usec: 20_000} // read checks this often whether to end
	return errors.Join(
		unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &pause),
		unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: link.Index}))
}

func (p *tap) read() {
	buf, control := make([]byte, 65536), make([]byte, 128)
	for !p.ending() {
		n, nc, _, from, err := unix.Recvmsg(p.fd, buf, control, 0)
		link, ok := from.(*unix.SockaddrLinklayer)
		// A bridge floods frames for others too: those did not arrive here.
		if err != nil || !ok || link.Pkttype != unix.PACKET_HOST || n < 14 {
			continue
		}
		if pkt, _, ok := packet.Parse(buf[14:n]); ok && marked(pkt) {
			p.mu.Lock()
			p.seen = append(p.seen, arrival{stamp(control[:nc]),
				fmt.Sprintf("%s → %s %s:%d", pkt.Src, p.name, pkt.Proto, pkt.DstPort)})
			p.mu.Unlock()
		}
	}
}

func marked(p packet.Packet) bool {
	return p.Proto == packet.TCP && p.Flags == packet.SYN && p.Window == markWindow ||
		p.Proto == packet.UDP && len(p.Payload) == 8 && binary.BigEndian.Uint32(p.Payload) == markWord
}

// stamp returns the kernel's time of a packet.
func stamp(control []byte) time.Time {
	messages, _ := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

func (p *tap) ending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop
}

// arrived returns the marked packets so far.
func (p *tap) arrived() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// lost returns how many packets the kernel could not deliver since the last call.
func (p *tap) lost() (uint32, error) {
	stats, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return stats.Drops, nil
}

// close ends the tap; a second call does nothing. Until then it keeps the pod's namespace alive.
func (p *tap) close() {
	p.mu.Lock()
	again := p.stop
	p.stop = true
	p.mu.Unlock()
	if !again {
		p.done.Wait()
		_ = unix.Close(p.fd) // nothing was written
	}
}
