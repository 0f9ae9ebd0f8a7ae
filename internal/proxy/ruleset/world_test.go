// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/stale"
)

// The endpoints of the world of an example: see there.
const (
	ourNode   = "node1"
	otherNode = "node2"
	ownPod    = "a/own"
	localPod  = "a/local"
	farPod    = "a/far"
	office    = "office"
	stranger  = "stranger"
)

// world is the example in namespaces, with servers in the backends and on the node, and the program in the
// node's kernel.
type world struct {
	example
	bed      *lab.Bed
	conn     *nft.Conn
	renderer ruleset.Renderer
	program  *program.Program
	actual   *nft.Table
	names    map[netip.Addr]string
	ours     []netip.Addr // addresses of the node
	ipvs     *balanced    // serves by IPVS; nil: by the tables alone
}

// newWorld makes one for a family.
func newWorld(t *testing.T, f inet.Family) *world {
	t.Helper()
	w := bareWorld(t, f)
	w.apply(t, w.example.program())
	return w
}

// bareWorld makes one without a program in the kernel.
func bareWorld(t *testing.T, f inet.Family) *world {
	t.Helper()
	e := newExample(f, netip.Addr{})
	bed, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: []string{ourNode, otherNode},
		Used: []netip.Addr{e.own, e.local, e.far, e.office, e.stranger}})
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	w := &world{example: e, bed: bed, names: map[netip.Addr]string{e.own: ownPod, e.local: localPod, e.far: farPod,
		e.office: office, e.stranger: stranger}}
	for name, at := range map[string]string{ownPod: ourNode, localPod: ourNode, farPod: otherNode} {
		_, short, _ := strings.Cut(name, "/")
		_, err := bed.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: "a", Name: short}, Node: at, IPs: []netip.Addr{w.addr(name)}})
		check(t, err)
	}
	for _, name := range []string{office, stranger} {
		_, err := bed.AddHost(name, []netip.Addr{w.addr(name)})
		check(t, err)
	}
	w.node = addrOf(w.endpoint(ourNode), f)
	w.names[w.node] = ourNode
	w.routes(t)
	w.serve(t, ownPod, target)
	w.serve(t, farPod, target)
	w.serve(t, ourNode, otherPort)
	w.conn = connIn(t, w.endpoint(ourNode).NS, f)
	return w
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// addr returns the address of an endpoint of the example.
func (w *world) addr(name string) netip.Addr {
	for a, n := range w.names {
		if n == name {
			return a
		}
	}
	return netip.Addr{}
}

func (w *world) endpoint(name string) *lab.Endpoint {
	i := slices.IndexFunc(w.bed.Endpoints(), func(e *lab.Endpoint) bool { return e.Name == name })
	return w.bed.Endpoints()[i]
}

func addrOf(e *lab.Endpoint, f inet.Family) netip.Addr {
	i := slices.IndexFunc(e.Addrs, func(a netip.Addr) bool { return inet.FamilyOf(a) == f })
	return e.Addrs[i]
}

// routes leads Services to our node, and gives the node itself a route to them: it never uses it.
func (w *world) routes(t *testing.T) {
	t.Helper()
	for _, name := range []string{ourNode, otherNode, office, stranger} {
		h, err := netlink.NewHandleAt(vnetns.NsHandle(w.endpoint(name).NS.FD()))
		check(t, err)
		link, err := h.LinkByName("eth0")
		check(t, err)
		for _, a := range []netip.Addr{w.web, w.none, w.quiet, w.sticky, w.unused, w.admitted, w.offset} {
			r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: a.AsSlice(),
				Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
			if name != ourNode {
				r.Gw, r.Flags = w.node.AsSlice(), int(netlink.FLAG_ONLINK)
			}
			check(t, h.RouteReplace(r))
		}
		if name == ourNode {
			addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
			check(t, err)
			for _, a := range addrs {
				ip, _ := netip.AddrFromSlice(a.IP)
				w.ours = append(w.ours, ip.Unmap())
			}
		}
		h.Close()
	}
}

// serve answers each connection and each datagram with the server's name and the client's address.
func (w *world) serve(t *testing.T, name string, port uint16) {
	t.Helper()
	at := netip.AddrPortFrom(w.addr(name), port).String()
	ns := w.endpoint(name).NS
	l, err := ns.Listen(t.Context(), "tcp", at)
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			_, _ = fmt.Fprint(c, name, " ", hostOf(c.RemoteAddr()))
			_ = c.Close()
		}
	}()
	var p net.PacketConn
	check(t, ns.Do(func() (err error) {
		p, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", at)
		return err
	}))
	t.Cleanup(func() { check(t, p.Close()) })
	go func() {
		buffer := make([]byte, 100)
		for {
			_, from, err := p.ReadFrom(buffer)
			if err != nil {
				return // closed
			}
			_, _ = p.WriteTo([]byte(name+" "+hostOf(from)), from)
		}
	}()
}

func hostOf(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().Unmap().String() }

// apply brings a program into the kernel, and forgets clients and connections as an agent does. It returns
// how many entries of the connection table were stale.
func (w *world) apply(t *testing.T, p *program.Program) (entries int) {
	t.Helper()
	p.NodeAddresses = []netip.Addr{w.node}
	check(t, p.Check())
	if w.ipvs != nil {
		return w.ipvs.apply(t, w, p)
	}
	next := w.renderer.Render(p, ruleset.Settings{})
	check(t, w.conn.Commit(nft.Diff(w.actual, next)))
	if w.program != nil {
		_, err := ruleset.Forget(w.conn, p, ruleset.StickyChanges(w.program, p), ruleset.Settings{}, w.isOwn)
		check(t, err)
	}
	// Without this, a client whose port was another one's a moment ago would follow that one.
	if j := stale.After(w.program, p, nil, nil); len(j.Needed()) > 0 {
		entries = w.deleteStale(t, j)
	}
	w.program, w.actual = p, next
	return entries
}

func (w *world) isOwn(a netip.Addr) bool { return slices.Contains(w.ours, a) }

// refused is the answer of a client that was refused.
const refused = "refused"

// connect connects once, or sends a datagram, and returns what the server answered, or refused.
func (w *world) connect(ctx context.Context, from, network string, to netip.AddrPort) (string, error) {
	c, err := w.endpoint(from).NS.Dial(ctx, network, to.String())
	if errors.Is(err, unix.ECONNREFUSED) {
		return refused, nil
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer []byte
	if network == "udp" {
		// The kernel refuses to send what the node's own chain drops or rejects; only the latter has an answer.
		if _, err = c.Write([]byte("who are you?")); err == nil || errors.Is(err, unix.EPERM) {
			answer = make([]byte, 100)
			var n int
			n, err = c.Read(answer)
			answer = answer[:n]
		}
	} else {
		answer, err = io.ReadAll(c)
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return refused, nil
	}
	if err == nil && len(answer) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(answer), err
}

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// once returns what a client meets: refused, the name of the server and whether the source is the client's,
// or silence. Silence is witnessed by a counter of our table, never by time.
func (w *world) once(t *testing.T, from, network string, to netip.AddrPort) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before := w.dropped(t)
	type result struct {
		answer string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := w.connect(ctx, from, network, to)
		done <- result{answer, err}
	}()
	for {
		select {
		case r := <-done:
			if r.err != nil {
				t.Fatalf("%s to %s, %s: %v", from, to, network, r.err)
			}
			return w.kept(from, r.answer)
		case <-time.After(10 * time.Millisecond):
			if w.dropped(t) > before {
				cancel()
				if r := <-done; r.err == nil {
					t.Fatalf("%s to %s, %s: dropped, and yet %q", from, to, network, r.answer)
				}
				return "dropped"
			}
		}
	}
}

// dropped returns the packets that our table has dropped.
func (w *world) dropped(t *testing.T) (n uint64) {
	t.Helper()
	counters, err := w.conn.Counters()
	check(t, err)
	for name, packets := range counters {
		if strings.HasPrefix(name, "drop-") {
			n += packets
		}
	}
	return n
}

// kept puts into an answer whose source the server saw.
func (w *world) kept(from, answer string) string {
	server, source, ok := strings.Cut(answer, " ")
	switch {
	case !ok:
		return answer
	case source == w.addr(from).String() && from != ourNode:
		return server + " sees the client"
	case slices.ContainsFunc(w.ours, func(a netip.Addr) bool { return a.String() == source }):
		return server + " sees the node"
	}
	return server + " sees " + source
}
