// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The pods of a bridge on which the node has no address. The first admits only the second.
const (
	apartVictim = "apart/victim"
	apartPeer   = "apart/peer"
	apartEvil   = "apart/evil"
	apartBridge = "br-apart"
)

func apartPods() []string { return []string{apartVictim, apartPeer, apartEvil} }

// apartAddr is the address of the pod with that number.
func apartAddr(n int, v6 bool) netip.Addr {
	return stage.Pick(v6, "fd00:9::"+strconv.Itoa(10+n), "10.9.0."+strconv.Itoa(10+n))
}

// apart adds such a bridge and its pods to the first node, as the CNI plugin
// "bridge" does with isGateway: false.
func (w *world) apart(t *testing.T, more func(h *netlink.Handle, bridge netlink.Link)) {
	t.Helper()
	h := w.Handle(t, node1)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags = apartBridge, net.FlagUp
	stage.Check(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge, err := h.LinkByName(apartBridge)
	stage.Check(t, err)
	if more != nil {
		more(h, bridge)
	}
	// The global settings are others' to make.
	stage.Check(t, w.NS(t, node1).Do(func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0); err != nil {
				return err
			}
		}
		return nil
	}))
	docs := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: apart}\n",
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: victim, namespace: apart}\n" +
			"spec: {podSelector: {matchLabels: {app: victim}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}]}]}\n"}
	for n, name := range apartPods() {
		ns, err := netns.New()
		stage.Check(t, err)
		t.Cleanup(func() { _ = ns.Close() })
		stage.Check(t, ns.SetSysctls(lab.Quick()))
		w.plug(t, h, bridge, ns, "apart"+strconv.Itoa(n), apartAddr(n, false), apartAddr(n, true))
		stage.Check(t, w.Prober().Add(probe.Endpoint{Name: name, NS: ns, Addrs: []netip.Addr{apartAddr(n, false), apartAddr(n, true)}, Device: "eth0"}))
		t.Cleanup(func() { w.Prober().Remove(name) })
		app := name[len("apart/"):]
		docs = append(docs, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+app+", namespace: apart, uid: apart-"+app+", labels: {app: "+app+"}}\n"+
			"spec: {nodeName: "+node1+", containers: [{name: main, image: none}]}\nstatus: {phase: Running, podIP: \""+apartAddr(n, false).String()+
			"\", podIPs: [{ip: \""+apartAddr(n, false).String()+"\"}, {ip: \""+apartAddr(n, true).String()+"\"}]}\n")
	}
	w.Enforce(t, append(stage.Usual(), docs...)...)
}

// plug makes a pod's pair of interfaces, one end a port of the bridge.
func (w *world) plug(t *testing.T, h *netlink.Handle, bridge netlink.Link, ns *netns.NS, name string, addrs ...netip.Addr) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags, attrs.MasterIndex = name, net.FlagUp, bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(ns.FD())
	stage.Check(t, h.LinkAdd(veth))
	inside, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
	stage.Check(t, err)
	defer inside.Close()
	link, err := inside.LinkByName("eth0")
	stage.Check(t, err)
	stage.Check(t, inside.LinkSetUp(link))
	for _, a := range addrs {
		onLink(t, inside, link, a)
	}
}

// onLink gives an interface an address, with the way to its subnet.
func onLink(t *testing.T, h *netlink.Handle, link netlink.Link, a netip.Addr) {
	t.Helper()
	subnet, flags := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}, 0
	if a.Is6() {
		subnet.Mask, flags = net.CIDRMask(64, 128), unix.IFA_F_NODAD
	}
	stage.Check(t, h.AddrAdd(link, &netlink.Addr{IPNet: subnet, Flags: flags}))
}

// apartVerdicts wants the policy to hold, and addresses to belong to their ports.
func (w *world) apartVerdicts(t *testing.T) {
	t.Helper()
	w.awaitPort(t, "apart0")
	stage.Families(t, func(t *testing.T, v6 bool) {
		ask := func(from string, to int) trial.Question {
			return trial.Question{From: from, To: apartPods()[to], Dst: apartAddr(to, v6), Proto: packet.TCP, Port: 80}
		}
		w.Allowed(t, ask(apartPeer, 0), ask(apartEvil, 1), ask(apartVictim, 2))
		w.Denied(t, ruleset.CounterIngress, ask(apartEvil, 0))
		forged := ask(apartEvil, 0)
		forged.Src = apartAddr(1, v6)
		w.Denied(t, ruleset.CounterSpoofedFrame, forged)
	})
}

// awaitPort returns when the agent has bound an address of each family to a
// bridge's port.
func (w *world) awaitPort(t *testing.T, port string) {
	t.Helper()
	for end := time.Now().Add(stage.Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		table, err := w.Conns[node1].Of(ruleset.BridgeTable()).Read()
		stage.Check(t, err)
		families := map[bool]bool{}
		for _, at := range ruleset.PortsInForce(table) {
			if at.Port == port {
				families[at.Addr.Is6()] = true
			}
		}
		if len(families) == 2 {
			return
		}
	}
	t.Errorf("%s has no address", port)
}

// Without an address of the node on the bridge no route leads to it. Its pods must be found by their ports;
// otherwise an isolated pod is reachable.
func TestPodsOfABridgeWithoutTheNodesAddress(t *testing.T) {
	for _, datapath := range []string{"nat", "filter"} {
		for _, way := range []string{"no route", "default gateway"} {
			t.Run(datapath+"/"+way, func(t *testing.T) {
				w := &world{stage.New(t, lab.Routed, stage.Setup{Args: []string{"--datapath=" + datapath}})}
				if way == "default gateway" {
					w.route(t, node1, "eth0", netip.MustParseAddr("172.30.0.99"), netip.Addr{})
					h := w.Handle(t, node1)
					stage.Check(t, h.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: net.ParseIP("172.30.0.99")}))
				}
				w.apart(t, nil)
				w.apartVerdicts(t)
			})
		}
	}
}

// The plugin's option vlan puts the node's address on one end of a pair whose other end is a port of the
// bridge. Packets from that port come from the node.
func TestPodsOfABridgeThatTheNodeReachesByAPair(t *testing.T) {
	for _, datapath := range []string{"nat", "filter"} {
		t.Run(datapath, func(t *testing.T) {
			w := &world{stage.New(t, lab.Routed, stage.Setup{Args: []string{"--datapath=" + datapath}})}
			w.apart(t, func(h *netlink.Handle, bridge netlink.Link) {
				attrs := netlink.NewLinkAttrs()
				attrs.Name, attrs.Flags, attrs.MasterIndex = "gw0-port", net.FlagUp, bridge.Attrs().Index
				veth := netlink.NewVeth(attrs)
				veth.PeerName = "gw0"
				stage.Check(t, h.LinkAdd(veth))
				link, err := h.LinkByName("gw0")
				stage.Check(t, err)
				stage.Check(t, h.LinkSetUp(link))
				onLink(t, h, link, stage.Pick(false, "", "10.9.0.1"))
				onLink(t, h, link, stage.Pick(true, "fd00:9::1", ""))
			})
			w.apartVerdicts(t)
			stage.Families(t, func(t *testing.T, v6 bool) {
				own := stage.Pick(v6, "fd00:9::1", "10.9.0.1")
				for n, name := range apartPods() {
					w.Allowed(t, trial.Question{From: node1, Src: own, To: name, Dst: apartAddr(n, v6), Proto: packet.UDP, Port: 80},
						trial.Question{From: name, To: node1, Dst: own, Proto: packet.UDP, Port: 80})
				}
				if w.passes(t, apartEvil, own, apartAddr(0, v6)) {
					t.Errorf("%s as the node reaches the victim", apartEvil)
				}
			})
		})
	}
}
