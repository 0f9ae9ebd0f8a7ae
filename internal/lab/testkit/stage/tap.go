// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stage

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

// Tap keeps every frame that enters an endpoint, whatever it is and whoever it
// is for, before anything in there looks at it.
type Tap struct {
	fd     int
	frames [][]byte
}

// Marks numbers the payloads of a world.
type Marks struct{ last atomic.Uint32 }

// Next returns 16 bytes that no other packet of the world has. Its length lets
// fragments end behind it.
func (m *Marks) Next() []byte {
	b := append(make([]byte, 0, 16), "podwall:mark"...)
	return binary.BigEndian.AppendUint32(b, m.last.Add(1))
}

func newTap(t *testing.T, ns *netns.NS) *Tap {
	t.Helper()
	p := &Tap{}
	Check(t, ns.Do(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return errors.Join(err, unix.Close(p.fd))
		}
		return errors.Join(
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8,
				Ifindex: link.Index}))
	}))
	t.Cleanup(func() { Check(t, unix.Close(p.fd)) })
	return p
}

// Saw reports whether a frame with the mark has entered.
func (p *Tap) Saw(t *testing.T, mark []byte) bool {
	t.Helper()
	return p.Count(t, mark) > 0
}

// Count returns how many frames with the mark have entered.
func (p *Tap) Count(t *testing.T, mark []byte) (frames int) {
	t.Helper()
	buf := make([]byte, 65536)
	for range 10000 {
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		Check(t, err)
		p.frames = append(p.frames, bytes.Clone(buf[:n]))
	}
	for _, f := range p.frames {
		if bytes.Contains(f, mark) {
			frames++
		}
	}
	return frames
}

// Await is Saw with some patience.
func (p *Tap) Await(t *testing.T, mark []byte) bool {
	t.Helper()
	return Becomes(func() bool { return p.Saw(t, mark) })
}

// Becomes waits, as long as something that must happen may take, until it has.
func Becomes(happened func() bool) bool {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if happened() {
			return true
		}
	}
	return happened()
}
