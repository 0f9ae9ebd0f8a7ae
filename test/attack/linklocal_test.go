// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// local is a link-local address on one link of an endpoint.
type local struct {
	endpoint string
	addr     netip.Addr
	index    int
}

func (w *world) podLocal(t *testing.T, pod string) local {
	t.Helper()
	return w.localOn(t, pod, "eth0")
}

// nodeLocal is the node's own address on the link that leads to a pod.
func (w *world) nodeLocal(t *testing.T, pod string) local {
	t.Helper()
	e := w.Endpoint(t, pod)
	if w.Wiring == lab.Bridge {
		return w.localOn(t, e.Node, lab.BridgeName)
	}
	return w.localOn(t, e.Node, e.HostDevice)
}

func (w *world) localOn(t *testing.T, endpoint, device string) local {
	t.Helper()
	h := w.Handle(t, endpoint)
	link, err := h.LinkByName(device)
	stage.Check(t, err)
	addrs, err := h.AddrList(link, netlink.FAMILY_V6)
	stage.Check(t, err)
	for _, a := range addrs {
		if ip, _ := netip.AddrFromSlice(a.IP); ip.IsLinkLocalUnicast() {
			return local{endpoint, ip, link.Attrs().Index}
		}
	}
	t.Fatalf("%s of %s has no link-local address", device, endpoint)
	return local{}
}

// to sends TCP, UDP and ICMP questions.
func (l local) to(dst local) []trial.Question {
	var list []trial.Question
	for _, proto := range []packet.Protocol{packet.TCP, packet.UDP, packet.ICMP} {
		list = append(list, trial.Question{From: l.endpoint, To: dst.endpoint, Src: l.addr,
			Dst: dst.addr.WithZone(strconv.Itoa(l.index)), Proto: proto, Port: 80})
	}
	return list
}

func TestLinkLocalAddressesAreNoWayAroundPolicies(t *testing.T) {
	for _, v4only := range []bool{false, true} {
		t.Run("v4only="+strconv.FormatBool(v4only), func(t *testing.T) {
			eachDatapath(t, stage.Setup{V4Only: v4only}, func(t *testing.T, w *world) {
				t.Run("out of an isolated pod", w.linkLocalOut)
				t.Run("between the node and its pods", w.linkLocalNode)
				if w.Wiring == lab.Bridge {
					t.Run("into an isolated pod", w.linkLocalIn)
					t.Run("on a bridge without isolated pods", w.linkLocalOpen)
				}
			})
		})
	}
}

func (w *world) linkLocalOut(t *testing.T) {
	from := w.podLocal(t, jailed)
	w.Denied(t, ruleset.CounterSpoofed, from.to(w.nodeLocal(t, jailed))...)
	if w.Wiring == lab.Bridge {
		w.Denied(t, ruleset.CounterSpoofed, append(from.to(w.podLocal(t, open)), from.to(w.podLocal(t, victim))...)...)
	}
}

// linkLocalNode covers probes of the kubelet, and what an open pod may do.
func (w *world) linkLocalNode(t *testing.T) {
	for _, pod := range []string{victim, jailed, near, far} {
		w.Allowed(t, w.nodeLocal(t, pod).to(w.podLocal(t, pod))...)
	}
	w.Allowed(t, w.podLocal(t, far).to(w.nodeLocal(t, far))...)
	if w.Wiring == lab.Routed {
		w.Allowed(t, w.podLocal(t, near).to(w.nodeLocal(t, near))...)
	}
}

// linkLocalIn isolates no pod for egress, so that only the victim's own isolation counts.
func (w *world) linkLocalIn(t *testing.T) {
	w.Enforce(t, stage.Usual()[0])
	defer w.Enforce(t, stage.Usual()...)
	to := w.podLocal(t, victim)
	w.Denied(t, ruleset.CounterUnknownPod, append(w.podLocal(t, near).to(to), w.podLocal(t, peer).to(to)...)...)
}

func (w *world) linkLocalOpen(t *testing.T) {
	w.Allowed(t, append(w.podLocal(t, far).to(w.podLocal(t, yonder)), w.podLocal(t, yonder).to(w.podLocal(t, far))...)...)
}
