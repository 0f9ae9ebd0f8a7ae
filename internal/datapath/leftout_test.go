// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tun makes a tuntap interface that is up; data written to the file is received on it, and data sent by it
// is read from the file.
func tun(t *testing.T, name string, kind uint16) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(kind | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = f.Close() }) // the interface goes with it
	run(t, "ip", "link", "set", name, "up")
	return f
}

// datagram is an IPv4 packet with UDP in it.
func datagram(from, to string) []byte {
	p := make([]byte, 28)
	src, dst := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	p[0], p[3], p[8], p[9], p[21], p[23], p[25] = 0x45, 28, 64, unix.IPPROTO_UDP, 9, 9, 8
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	return p
}

// sender returns the source of the next UDP packet that leaves by a tap.
func sender(t *testing.T, tap *os.File) string {
	t.Helper()
	for frame := make([]byte, 2048); ; {
		n, err := tap.Read(frame)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 42 && frame[12] == 8 && frame[13] == 0 && frame[23] == unix.IPPROTO_UDP {
			from, _ := netip.AddrFromSlice(frame[26:30])
			return from.String()
		}
	}
}

// A pod left out is closed wherever it is: behind a tap device, which leads to pods only as long as a pod
// is known there, and on a bridge with other machines. A later packet of the node arrives first.
func TestAPodThatIsLeftOutIsClosedWhereverItIs(t *testing.T) {
	const node, outside, pod = "192.168.7.2", "192.168.7.9", "10.244.9.2"
	for name, wire := range map[string][]string{
		"tap0": {"route add " + pod + " dev tap0"},
		"br0": {"link add br0 type bridge", "link set br0 up", "link set tap0 master br0", "addr add 10.244.9.100/24 dev br0",
			"route add default via 10.244.9.254 dev br0"},
	} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				network, tap := tun(t, "net0", unix.IFF_TUN), tun(t, "tap0", unix.IFF_TAP)
				neighbour := "neigh add " + pod + " lladdr 02:00:00:00:00:01 nud permanent dev " + name
				for _, command := range append(wire, "addr add "+node+"/24 dev net0", neighbour) {
					run(t, "ip", strings.Fields(command)...)
				}
				if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
					t.Fatal(err)
				}
				pass := func(want string) {
					t.Helper()
					if _, err := network.Write(datagram(outside, pod)); err != nil {
						t.Fatal(err)
					}
					if err := send(t.Context(), netip.MustParseAddr(pod)); err != nil {
						t.Fatal(err)
					}
					if got := sender(t, tap); (got == outside) != (want == outside) {
						t.Errorf("the pod is reached from %s first, want %s", got, want)
					}
				}
				pass(outside) // as long as there are no rules
				sender(t, tap)
				if r := apply(t, open(t, Options{}), withRefused(isolated(first))); !strings.Contains(leftOut(r).Text,
					"pod x/no-chain") {
					t.Fatalf("%+v", r.Problems)
				}
				pass(node)
			})
		})
	}
}
