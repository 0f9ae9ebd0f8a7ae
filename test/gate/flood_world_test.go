// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The range that pods get addresses from is small, so that each address is
// flooded hard, and soon has a second owner.
const (
	rangeSize  = 16
	floodPort  = 7000 // that the flood is sent to
	initPort   = 7001 // that pods send to
	perSecond  = 4000
	oldPort    = 20000 // the flood's source port in connections that began before the pod
	floodPorts = 64    // source ports of the flood that are taken by turns
)

// floodRange lists the addresses that pods get.
func floodRange() (list []netip.Addr) {
	v4, v6 := netip.MustParseAddr("10.88.0.16"), netip.MustParseAddr("fd00:88::10")
	for range rangeSize {
		list = append(list, v4, v6)
		v4, v6 = v4.Next(), v6.Next()
	}
	return list
}

// flooded is a node with a host outside, an open neighbour and, if wanted, a
// friend whom the policies let in at the shop's pods. All of them flood the
// range of pods' addresses.
type flooded struct {
	*node
	far       *netns.NS
	timeout   string      // of our plugin
	args      [][2]string // more arguments for the plugins of the shop's pods
	span      [4]string   // first and last address of pods, IPv4 and IPv6
	gated     *libcni.NetworkConfigList
	plain     *libcni.NetworkConfigList // the same without our plugin
	table     *nft.Conn
	tracked   *conntrack.Conn
	base      []string
	mouths    []*mouth
	targets   []netip.Addr // of what pods send
	eyes      []eye        // where that would arrive
	friend    []netip.Addr
	stop      context.CancelFunc
	running   sync.WaitGroup
	err       error // of the flood; to be read after running
	starts    int
	published int
}

func nodeAddrs() []string { return []string{"198.51.100.1/24", "fd00:99::1/64"} }
func farAddrs() []string  { return []string{"198.51.100.2/24", "fd00:99::2/64"} }

// denyAll isolates every pod of the shop in both directions.
const denyAll = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none, namespace: shop}\n" +
	"spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n"

const allowFriend = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: friend, namespace: shop}\n" +
	"spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]}]}\n"

func newFlooded(t *testing.T, plugin, timeout string) *flooded {
	t.Helper()
	f := &flooded{node: newNode(t, plugin, settings(fmt.Sprintf(`"timeout": %q`, timeout))), far: newNamespace(t)}
	f.timeout, f.span = timeout, [4]string{"10.88.0.16", "10.88.0.31", "fd00:88::10", "fd00:88::1f"}
	f.gated, f.plain = f.list(true), f.list(false)
	f.networks = f.gated
	check(t, f.ns.SetSysctls([]netns.Sysctl{{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv6/conf/all/forwarding", Value: "1"}}))
	check(t, f.ns.Do(f.uplink))
	check(t, f.far.Do(func() error { return equip("eth0", farAddrs(), nodeAddrs()) }))
	var err error
	f.table, err = ruleset.Open(f.ns.FD())
	check(t, err)
	t.Cleanup(func() { check(t, f.table.Close()) })
	check(t, f.ns.Do(func() (err error) {
		f.tracked, err = conntrack.Open()
		return err
	}))
	t.Cleanup(func() { check(t, f.tracked.Close()) })
	f.meet("outside", f.far, hosts(farAddrs()))
	awaitStamps(t)
	f.base = []string{denyAll, "apiVersion: v1\nkind: Namespace\nmetadata: {name: evil}\n",
		"apiVersion: v1\nkind: Node\nmetadata: {name: node1}\nstatus: {addresses: [{type: InternalIP, address: 198.51.100.1}, {type: InternalIP, address: 'fd00:99::1'}]}\n"}
	return f
}

// list is a pod network's configuration.
func (f *flooded) list(gate bool) *libcni.NetworkConfigList {
	f.t.Helper()
	text := fmt.Sprintf(`{"type": %q, %s "ipMasq": false, "ipam": {"type": "host-local", "dataDir": %q,
  "ranges": [[{"subnet": "10.88.0.0/24", "rangeStart": %q, "rangeEnd": %q}], [{"subnet": "fd00:88::/64", "rangeStart": %q, "rangeEnd": %q}]],
  "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}`, f.plugin, map[string]string{"bridge": `"bridge": "cni0", "isGateway": true,`}[f.plugin], filepath.Join(f.dir, "ipam"),
		f.span[0], f.span[1], f.span[2], f.span[3])
	if gate {
		text += fmt.Sprintf(`, {"type": "podwall-gate", "socket": %q, "timeout": %q}`, f.socket, f.timeout)
	}
	list, err := libcni.NetworkConfFromBytes([]byte(`{"cniVersion": "1.1.0", "name": "pods", "plugins": [` + text + `]}`))
	check(f.t, err)
	return list
}

// uplink joins the node and the host outside. Both use the other one for all
// that they know no other way to, as nodes do.
func (f *flooded) uplink() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(f.far.FD())}); err != nil {
		return fmt.Errorf("making the uplink: %w", err)
	}
	if err := f.far.Do(func() error { return up("eth0") }); err != nil {
		return err
	}
	return equip("uplink0", nodeAddrs(), farAddrs())
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// equip gives an interface its addresses and the ways over the other end.
func equip(name string, own, other []string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for i, text := range own {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("adding %s to %s: %w", text, name, err)
		}
		gateway := hosts(other)[i]
		all := &net.IPNet{IP: make(net.IP, gateway.BitLen()/8), Mask: net.CIDRMask(0, gateway.BitLen())}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("adding the way over %s: %w", gateway, err)
		}
	}
	return nil
}

func hosts(prefixes []string) (list []netip.Addr) {
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p).Addr())
	}
	return list
}

// meet makes somebody send the flood, and look for what pods send.
func (f *flooded) meet(name string, ns *netns.NS, addrs []netip.Addr) {
	f.t.Helper()
	m := openMouth(f.t, name, ns, addrs)
	f.t.Cleanup(func() { check(f.t, m.close()) })
	e := openEye(f.t, ns)
	f.t.Cleanup(func() { check(f.t, e.close()) })
	f.mouths, f.eyes, f.targets = append(f.mouths, m), append(f.eyes, e), append(f.targets, addrs...)
}

// resident starts a pod in the namespace evil that stays.
func (f *flooded) resident(name string) []netip.Addr {
	f.t.Helper()
	s := f.sandbox("s-"+name, name, name)
	s.conf.Args[1][1] = "evil"
	addrs := f.mustAdd(s)
	f.meet(name, s.ns, addrs)
	return addrs
}

// evil is a pod in the namespace that no policy speaks about.
func evil(name string) string {
	return strings.ReplaceAll(object(name, name), "namespace: shop", "namespace: evil")
}

// company publishes the residents and the shop's pods, starts the agent, and the
// residents.
func (f *flooded) company(pods int, friend bool, args ...string) *agent {
	f.t.Helper()
	f.base = append(f.base, evil("neighbour"), evil("other"))
	if friend {
		f.base = append(f.base, evil("friend"), allowFriend)
	}
	f.published = pods
	f.announce(-1, nil)
	a := f.startAgent(args...)
	f.resident("neighbour")
	f.resident("other")
	if friend {
		f.friend = f.resident("friend")
	}
	return a
}

// announce publishes all, and the addresses of one of the shop's pods.
func (f *flooded) announce(named int, ips []netip.Addr) {
	f.t.Helper()
	docs := append([]string(nil), f.base...)
	for i := range f.published {
		text := object(podName(i), podName(i))
		if i == named {
			text = strings.ReplaceAll(text, "{phase: Pending}", fmt.Sprintf("{phase: Running, podIP: %q, podIPs: [{ip: %q}, {ip: %q}]}", ips[0], ips[0], ips[1]))
		}
		docs = append(docs, text)
	}
	f.publish(docs...)
}

// shopPod is the next start of a pod of the shop.
func (f *flooded) shopPod(ns *netns.NS) sandbox {
	name := podName(f.starts)
	f.starts++
	return sandbox{ns, &libcni.RuntimeConf{ContainerID: "s-" + name, NetNS: ns.Path(), IfName: "eth0", Args: append([][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", name}, {"K8S_POD_INFRA_CONTAINER_ID", "s-" + name}, {"K8S_POD_UID", name}}, f.args...)}}
}

func podName(i int) string { return fmt.Sprintf("web-%d", i) }

// flood begins to send from all who are met so far to the whole range. Every
// second lap takes source ports by turns; the others repeat one connection, which
// began before the pod.
func (f *flooded) flood() {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	to := floodRange()
	f.running.Go(func() { f.err = f.send(ctx, to) })
	f.t.Cleanup(f.halt)
}

func (f *flooded) send(ctx context.Context, to []netip.Addr) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start, turn := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds() * perSecond / 2)
		for range min(due-turn, 50) {
			if err := f.hit(turn, to); err != nil {
				return err
			}
			turn++
		}
	}
}

// hit sends from one of the senders to one address.
func (f *flooded) hit(turn int, to []netip.Addr) error {
	m, round := f.mouths[turn%len(f.mouths)], turn/len(f.mouths)
	port := uint16(oldPort)
	if lap := round / len(to); lap%2 == 1 {
		port += uint16(1 + lap%floodPorts)
	}
	return m.say(to[round%len(to)], port, floodPort)
}

func (f *flooded) halt() {
	f.stop()
	f.running.Wait()
}
