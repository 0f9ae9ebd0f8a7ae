// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// late is a pod that gets another address after the agent knows the first.
const late = "new/late"

// lateObject is the pod's object with these addresses.
func lateObject(addrs ...netip.Addr) string {
	var ips []string
	for _, a := range addrs {
		ips = append(ips, `{ip: "`+a.String()+`"}`)
	}
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: new, uid: late, labels: {app: late}}\n" +
		"spec: {nodeName: " + node1 + ", containers: [{name: main, image: none}]}\n" +
		"status: {phase: Running, podIP: \"" + addrs[0].String() + "\", podIPs: [" + strings.Join(ips, ", ") + "]}\n"
}

// takeOnLink gives a pod one more address, with the way to its subnet.
func (w *world) takeOnLink(t *testing.T, name string, a netip.Addr) {
	t.Helper()
	h := w.Handle(t, name)
	link, err := h.LinkByName("eth0")
	stage.Check(t, err)
	subnet := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}
	flags := 0
	if a.Is6() {
		subnet.Mask, flags = net.CIDRMask(64, 128), unix.IFA_F_NODAD
	}
	stage.Check(t, h.AddrAdd(link, &netlink.Addr{IPNet: subnet, Flags: flags}))
}

// An additional address of a pod belongs to the pod's port like its first one. It is equally attractive for
// a neighbour: here the victim admits the pod.
func TestALaterAddressBelongsToItsPort(t *testing.T) {
	lets := stage.Policy("late", "victim", `policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: late}}}]}]`)
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n"
	for name, v6 := range map[string]bool{"IPv6 after IPv4": true, "IPv4 after IPv6": false} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, stage.Setup{}, func(t *testing.T, w *world) {
				first, second := newcomerAddr(!v6), newcomerAddr(v6)
				w.wire(t, late, first)
				w.Enforce(t, append(stage.Usual(), lets, namespace, lateObject(first))...)
				w.takeOnLink(t, late, second)
				if w.Wiring == lab.Routed {
					w.route(t, node1, w.Endpoint(t, late).HostDevice, second, netip.Addr{})
				}
				w.Enforce(t, append(stage.Usual(), lets, namespace, lateObject(first, second))...)

				if w.reaches(t, near, second, victim) {
					t.Errorf("%s as %s reaches the victim", near, second)
				}
				w.Arrive(t, w.straight(t, "by the later address", late, victim, packet.Packet{Src: second, Dst: w.Addr(t, victim, v6),
					Proto: packet.UDP, SrcPort: 7000, DstPort: 80}))
			})
		})
	}
}
