// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// nobody is a user without rights.
const nobody = 65534

// own gives node1 an address on no shared link, the usual one of a node-local DNS cache, and returns all
// addresses of the node: of its uplink, this one, and of the pod bridge if there is one.
func (w *world) own(t *testing.T, v6 bool) []netip.Addr {
	t.Helper()
	extra := stage.Pick(v6, "fd00:99::1", "169.254.20.10")
	h, lo := w.link(t, node1, "lo")
	stage.Check(t, h.AddrReplace(lo, &netlink.Addr{IPNet: single(extra), Flags: unix.IFA_F_NODAD}))
	if !stage.Becomes(func() bool { // somewhat after it accepted the address, for IPv6
		routes, err := h.RouteGet(extra.AsSlice())
		return err == nil && routes[0].Type == unix.RTN_LOCAL
	}) {
		t.Fatalf("the kernel does not take %s for its own", extra)
	}
	list := []netip.Addr{w.Addr(t, node1, v6), extra}
	if w.Wiring == lab.Bridge {
		list = append(list, stage.Pick(v6, "fd00:244:1::1", "10.244.1.1"))
	}
	return list
}

func TestEveryProcessOfTheNodeReachesItsPods(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.denyAll(t)
		stage.Families(t, func(t *testing.T, v6 bool) {
			var list []trial.Question
			for _, src := range w.own(t, v6) {
				for _, proto := range []packet.Protocol{packet.TCP, packet.UDP, packet.ICMP} {
					q := w.Ask(t, node1, victim, v6, proto, 80)
					q.Src = src
					list = append(list, q)
				}
			}
			w.Allowed(t, list...)
			to, before := w.at(t, victim, v6, 8080), w.Counters(t)
			w.listen(t, victim, to)
			err := w.dialAs(t, node1, nobody, to)
			if errors.Is(err, unix.EINVAL) && os.Getenv("CI") != "true" {
				t.Skip("there is no other user in this user namespace")
			}
			if err != nil {
				t.Errorf("user %d of the node does not reach %s: %v", nobody, to, err)
			}
			w.Moved(t, "the node's user", before, stage.Drops{})
		})
	})
}

// dialAs connects as another user. Linux keeps credentials per thread: only the dialling thread changes its
// user, and it changes back at the end.
func (w *world) dialAs(t *testing.T, endpoint string, user int, to netip.AddrPort) error {
	t.Helper()
	return w.NS(t, endpoint).Do(func() (err error) {
		if err := setUser(user); err != nil {
			return fmt.Errorf("becoming user %d: %w", user, err)
		}
		defer func() { err = errors.Join(err, setUser(0)) }()
		if _, err := os.ReadFile("/proc/thread-self/environ"); err == nil {
			return errors.New("the thread still may do everything")
		}
		return connect(to)
	})
}

// setUser sets the effective and file system user of the thread. It keeps the real and saved ones, which
// allow to change back.
func setUser(user int) error {
	const unchanged = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(user), unchanged); errno != 0 {
		return errno
	}
	return nil
}

// connect opens a TCP connection on this thread and closes it.
func connect(to netip.AddrPort) error {
	family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
	if to.Addr().Is6() {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		addr.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	limit := unix.NsecToTimeval(stage.Patience.Nanoseconds())
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit), unix.Connect(fd, addr),
		unix.Close(fd))
}

func TestAnotherNodeIsPoliced(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.denyAll(t)
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, proto := range packet.Protocols {
				w.Denied(t, ruleset.CounterIngress, w.Ask(t, node2, victim, v6, proto, 80))
				w.Denied(t, ruleset.CounterEgress, w.Ask(t, victim, node2, v6, proto, 80))
			}
		})
		w.denyAll(t, stage.Policy("node2", "victim", `policyTypes: [Ingress, Egress],
  ingress: [{from: [{ipBlock: {cidr: 172.30.0.12/32}}, {ipBlock: {cidr: "fd00:172:30::12/128"}}]}],
  egress: [{to: [{ipBlock: {cidr: 172.30.0.12/32}}, {ipBlock: {cidr: "fd00:172:30::12/128"}}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, node2, victim, v6, packet.TCP, 80), w.Ask(t, victim, node2, v6, packet.TCP, 80))
			w.Denied(t, ruleset.CounterEgress, w.Ask(t, victim, node1, v6, packet.TCP, 80),
				w.Ask(t, victim, out, v6, packet.TCP, 80))
			w.Denied(t, ruleset.CounterIngress, w.Ask(t, out, victim, v6, packet.TCP, 80))
		})
	})
}

// hostPod is a pod that uses node2's network. It has the peer's label.
const hostPod = `apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop, uid: host, labels: {app: peer}}
spec: {nodeName: node2, hostNetwork: true, containers: [{name: main, image: none}]}
status: {phase: Running, podIP: 172.30.0.12, podIPs: [{ip: 172.30.0.12}, {ip: "fd00:172:30::12"}]}
`

func TestAHostNetworkPodIsMetByItsNodesAddressOnly(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.Enforce(t, append(stage.Usual(), hostPod)...)
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, peer, victim, v6, packet.TCP, 80), w.Ask(t, near, node2, v6, packet.TCP, 80))
			w.Denied(t, ruleset.CounterIngress, w.Ask(t, node2, victim, v6, packet.TCP, 80))
		})
		w.denyAll(t, hostPod, stage.Policy("host", "victim", `policyTypes: [Ingress],
  ingress: [{from: [{ipBlock: {cidr: 172.30.0.12/32}}, {ipBlock: {cidr: "fd00:172:30::12/128"}}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Allowed(t, w.Ask(t, node2, victim, v6, packet.TCP, 80))
			w.Denied(t, ruleset.CounterEgress, w.Ask(t, peer, victim, v6, packet.TCP, 80))
			w.Allowed(t, w.Ask(t, near, node2, v6, packet.TCP, 80)) // the policy for all pods does not apply to a node
		})
	})
}

func TestAPodIsPolicedTowardsEveryAddressOfItsNode(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			all := w.own(t, v6)
			for i, opened := range all {
				w.Enforce(t, stage.Policy("jailed", "jailed", fmt.Sprintf(`policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "%s/%d"}}], ports: [{port: 80}]}]`, opened, opened.BitLen())))
				for k, a := range all {
					q := trial.Question{From: jailed, To: node1, Src: w.Addr(t, jailed, v6), Dst: a, Proto: packet.TCP, Port: 80}
					if i == k {
						w.Allowed(t, q)
						q.Port = 10250
					}
					w.Denied(t, ruleset.CounterEgress, q)
				}
			}
		})
	})
}
