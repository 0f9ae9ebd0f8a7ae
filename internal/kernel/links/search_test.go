// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/netns"
)

var (
	ofA, ofB = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	ofA6     = netip.MustParseAddr("fd00:9::1")
)

// harbour is some ports of bridge 7, each with its peer in a namespace of its own.
type harbour struct {
	t       *testing.T
	p       ports
	devices map[int]device
	wishes  map[netip.Addr]wish
	pods    []Pod
	inside  map[string]*netlink.Handle
}

func newHarbour(t *testing.T, pods ...Pod) *harbour {
	h := &harbour{t: t, p: newPorts(), devices: map[int]device{}, wishes: map[netip.Addr]wish{}, pods: pods,
		inside: map[string]*netlink.Handle{}}
	for _, pod := range pods {
		h.wishes[pod.Addr] = wish{bridge: 7}
	}
	return h
}

// port adds a port whose peer has the addresses.
func (h *harbour) port(name string, addrs ...netip.Addr) device {
	h.t.Helper()
	ns, err := netns.New()
	check(h.t, err)
	h.t.Cleanup(func() { _ = ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(ns.FD())
	check(h.t, netlink.LinkAdd(veth))
	link, err := netlink.LinkByName(name)
	check(h.t, err)
	inside, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
	check(h.t, err)
	h.t.Cleanup(inside.Close)
	h.inside[name] = inside
	for _, a := range addrs {
		h.take(name, a)
	}
	d := device{index: link.Attrs().Index, name: name, kind: "veth", master: 7,
		netns: link.Attrs().NetNsID, peer: link.Attrs().ParentIndex, away: true}
	h.devices[d.index] = d
	return d
}

func (h *harbour) index(port string) int {
	for index, d := range h.devices {
		if d.name == port {
			return index
		}
	}
	return 0
}

// take gives the peer of a port another address.
func (h *harbour) take(port string, a netip.Addr) {
	h.t.Helper()
	link, err := h.inside[port].LinkByName("eth0")
	check(h.t, err)
	addr, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
	check(h.t, err)
	check(h.t, h.inside[port].AddrAdd(link, addr))
}

// hardware gives the peer another hardware address.
func (h *harbour) hardware(port, of string) {
	h.t.Helper()
	from, err := h.inside[of].LinkByName("eth0")
	check(h.t, err)
	to, err := h.inside[port].LinkByName("eth0")
	check(h.t, err)
	check(h.t, h.inside[port].LinkSetHardwareAddr(to, from.Attrs().HardwareAddr))
}

// at wants each address to be at a port, "" for none.
func (h *harbour) at(want map[netip.Addr]string, unclear ...string) {
	h.t.Helper()
	found, err := h.p.find(h.devices, h.pods, h.wishes)
	check(h.t, err)
	for a, port := range want {
		if found[a].name != port {
			h.t.Errorf("%s is at %q, want %q (%v)", a, found[a].name, port, h.p.unclear)
		}
	}
	why := slices.Sorted(maps.Values(h.p.unclear))
	for _, text := range unclear {
		if !slices.ContainsFunc(why, func(s string) bool { return strings.Contains(s, text) }) {
			h.t.Errorf("unclear is %q, want %q", why, text)
		}
	}
	if len(unclear) == 0 && len(why) > 0 {
		h.t.Errorf("unclear is %q, want nothing", why)
	}
}

func podsAB() []Pod {
	return []Pod{{Addr: ofA, Name: "x/a"}, {Addr: ofA6, Name: "x/a"}, {Addr: ofB, Name: "x/b"}}
}

func inHarbour(t *testing.T, test func(t *testing.T, h *harbour)) {
	t.Helper()
	inOwnNamespace(t, func(t *testing.T) { test(t, newHarbour(t, podsAB()...)) })
}

func TestAPodsPortIsFoundByTheAddressesThatItHad(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		d := h.port("veth1", ofA, ofA6)
		h.port("veth2", ofB)
		h.at(map[netip.Addr]string{ofA: "veth1", ofA6: "veth1", ofB: "veth2"})
		if none := (inet.Hardware{}); h.p.hardwareOf(d.index) == none {
			t.Error("no hardware address of the port is known")
		}
		delete(h.devices, d.index)
		h.at(map[netip.Addr]string{ofA: "", ofA6: "", ofB: "veth2"})
		if len(h.p.ends) != 1 {
			t.Errorf("%d ports are known, want one", len(h.p.ends))
		}
	})
}

// Addresses that a pod takes later do not become its own, and addresses that it gives up stay its own,
// wherever it moves the interface.
func TestAPodGainsAndLosesNothingByWhatItDoesToItsInterface(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		d := h.port("veth1", ofA)
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: ""})
		h.take("veth1", ofB)
		h.p.now = func() time.Time { return time.Now().Add(time.Hour) } // it would be read again
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: ""})
		d.netns, d.peer = 99, 99 // moved on
		h.devices[d.index] = d
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: ""})
		h.port("veth2", ofB)
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: "veth2"})
	})
}

// The attacker is a, which had its neighbours' addresses before they were first read. It has the older
// port.
func TestOfTwoPortsWithAnAddressTheOneOfAnotherPodIsNotMeant(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofA, ofB)
		h.port("veth2", ofB)
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: "veth2"})
	})
}

func TestOfTwoPortsThatCanBeMeantNoneHasTheAddress(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofB) // gave up its own
		h.port("veth2", ofB)
		h.at(map[netip.Addr]string{ofB: ""}, "veth1, veth2")
	})
}

func TestOneOfTwoPodsAtAPortIsNotGuessed(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofA, ofB)
		h.at(map[netip.Addr]string{ofA: "", ofB: ""}, "and that of x/a", "and that of x/b")
	})
}

func TestAPortOfOnePodIsNoOthers(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.pods = h.pods[:1]
		h.port("veth1", ofA, ofB)
		h.at(map[netip.Addr]string{ofA: "veth1"})
		h.pods = podsAB()
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: ""}, "which is that of x/a")
	})
}

func TestTheRuntimesWordCountsMost(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofB)
		h.port("veth2", ofB)
		h.pods[2].Links = []string{"cni0", "veth2"}
		h.at(map[netip.Addr]string{ofB: "veth2"})
		h.pods[2].Links = nil
		h.at(map[netip.Addr]string{ofB: "veth2"})
	})
}

// The API still has the previous pod with the address when the next one is already wired. A new pod with
// the same name is another pod.
func TestAPortIsThatOfTheNextPodWhenTheLastOneIsGone(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.pods = []Pod{{Addr: ofA, Name: "x/last", ID: "1"}}
		h.port("veth1", ofA)
		h.at(map[netip.Addr]string{ofA: "veth1"})
		h.port("veth2", ofB)
		h.pods = []Pod{{Addr: ofB, Name: "x/last", ID: "2"}, {Addr: ofA, Name: "x/next", ID: "3"}}
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: "veth2"})
		if got := h.p.ends[h.index("veth1")].pod; got != (who{"x/next", "3"}) {
			t.Errorf("the port is that of %v", got)
		}
	})
}

// The pod is restarted before the interface of its last sandbox is deleted. Plugins may assign the same
// addresses again, including the hardware address.
func TestOfTwoPortsOfOnePodTheNewerIsMeant(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofA)
		h.at(map[netip.Addr]string{ofA: "veth1", ofA6: "veth1", ofB: ""})
		h.port("veth2", ofA, ofA6)
		h.hardware("veth2", "veth1")
		for i := range 2 {
			h.pods[i].Links = []string{"veth2"}
		}
		h.at(map[netip.Addr]string{ofA: "veth2", ofA6: "veth2", ofB: ""})
	})
}

// An additional address of a pod is at the pod's port, if no other port has it.
func TestAFurtherAddressIsAtThePodsPort(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofA)
		h.port("veth2", ofB)
		h.at(map[netip.Addr]string{ofA: "veth1", ofA6: "veth1", ofB: "veth2"})
	})
}

func TestTwoPodsOfOneHardwareAddress(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofA)
		h.at(map[netip.Addr]string{ofA: "veth1"})
		h.port("veth2", ofB)
		h.hardware("veth2", "veth1")
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: ""}, "veth2, veth1 have the same hardware address")
	})
}

// The thief takes the hardware address of a future pod, which the API names first or last.
func TestAHardwareAddressIsThatOfThePortThatHadItFirst(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		h.port("veth1", ofA)
		h.pods = nil
		h.at(nil)
		h.port("veth2", ofB)
		h.at(nil)
		h.hardware("veth1", "veth2")
		h.pods = podsAB()
		h.at(map[netip.Addr]string{ofA: "", ofB: "veth2"}, "veth1, veth2 have the same hardware address")
	})
}

func TestAnAddressIsAtAPortOnlyIfNoRouteSpeaksAgainstIt(t *testing.T) {
	for name, tt := range map[string]struct {
		wish wish
		port string
		why  []string
	}{
		"no route": {wish{}, "veth1", nil},
		"a route elsewhere": {wish{other: "the route 10.9.0.0/24"}, "",
			[]string{"the route 10.9.0.0/24 leads elsewhere"}},
		"another bridge than the route says": {wish{bridge: 8}, "", []string{"another bridge"}},
	} {
		t.Run(name, func(t *testing.T) {
			inHarbour(t, func(t *testing.T, h *harbour) {
				h.port("veth1", ofA)
				h.pods = h.pods[:1]
				h.wishes = map[netip.Addr]wish{ofA: tt.wish}
				h.at(map[netip.Addr]string{ofA: tt.port}, tt.why...)
			})
		})
	}
}

// Bindings of an earlier process are valid, unless another interface has the index by now.
func TestPortsAreTakenOverFromTheTable(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		d := h.port("veth1", ofA, ofB) // the attacker's, as it is now
		other := h.port("veth2", ofB)
		third := h.port("veth3", ofB)
		l := Links{ports: h.p}
		hardware := inet.Hardware{2, 0, 0, 0, 0, 9}
		l.Bind([]Binding{{"x/a", "", ofA, "veth1", d.index, hardware}, {"x/b", "", ofB, "veth2", other.index, hardware},
			{"x/c", "", ofB, "gone", third.index, hardware}})
		h.at(map[netip.Addr]string{ofA: "veth1", ofB: "veth2"})
		if h.p.hardwareOf(d.index) != hardware {
			t.Errorf("the hardware address is %s, want that of the table", h.p.hardwareOf(d.index))
		}
		e := h.p.ends[third.index]
		if e.port != "veth3" || !e.pod.unknown() {
			t.Errorf("what was said of an interface of another name holds: %+v", e)
		}
	})
}

// A port without addresses is read often at first, then once a second; a port with addresses is read once.
func TestAPortIsAskedUntilItHasAnAddress(t *testing.T) {
	inHarbour(t, func(t *testing.T, h *harbour) {
		now := time.Unix(1_000_000, 0)
		h.p.now = func() time.Time { return now }
		l := Links{ports: h.p}
		d := h.port("veth1")
		var asked []string
		var last time.Time
		for begin := now; now.Sub(begin) < 5*time.Second; now = now.Add(time.Millisecond) {
			h.at(nil)
			if at := h.p.ends[d.index].asked; at != last {
				asked, last = append(asked, fmt.Sprint(at.Sub(begin).Milliseconds())), at
			}
		}
		if want := "0 10 20 40 80 160 320 640 1280 2280 3280 4280"; strings.Join(asked, " ") != want {
			t.Errorf("asked after %s ms, want %s", strings.Join(asked, " "), want)
		}
		if got := l.RetryAfter(); got != askEach {
			t.Errorf("asks again after %v, want %v", got, askEach)
		}
		h.take("veth1", ofA)
		now = now.Add(askEach)
		h.at(map[netip.Addr]string{ofA: "veth1"})
		if got := l.RetryAfter(); got != 0 {
			t.Errorf("a port that has an address is asked again after %v", got)
		}
	})
}
