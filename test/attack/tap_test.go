// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

// tap keeps every frame that enters an endpoint, whatever it is and whoever it
// is for, before anything in there looks at it.
type tap struct {
	fd     int
	frames [][]byte
}

// marks numbers the payloads.
var marks atomic.Uint32

// mark returns 16 bytes that no other packet has. Its length lets fragments end
// behind it.
func mark() []byte {
	b := append(make([]byte, 0, 16), "podwall:attk"...)
	return binary.BigEndian.AppendUint32(b, marks.Add(1))
}

func newTap(t *testing.T, ns *netns.NS) *tap {
	t.Helper()
	p := &tap{}
	check(t, ns.Do(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return errors.Join(err, unix.Close(p.fd))
		}
		return errors.Join(
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: link.Index}))
	}))
	t.Cleanup(func() { check(t, unix.Close(p.fd)) })
	return p
}

// saw reports whether a frame with the mark has entered.
func (p *tap) saw(t *testing.T, mark []byte) bool {
	t.Helper()
	buf := make([]byte, 65536)
	for range 10000 {
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		check(t, err)
		p.frames = append(p.frames, bytes.Clone(buf[:n]))
	}
	for _, f := range p.frames {
		if bytes.Contains(f, mark) {
			return true
		}
	}
	return false
}

// await is saw with some patience.
func (p *tap) await(t *testing.T, mark []byte) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if p.saw(t, mark) {
			return true
		}
	}
	return p.saw(t, mark)
}
