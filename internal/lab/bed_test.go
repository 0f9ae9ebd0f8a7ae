// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
)

// wirings are those that can be tried: the CNI ones need the plugins.
func wirings(t *testing.T) []lab.Wiring {
	if os.Getenv("PODWALL_CNI_BIN") != "" {
		return lab.Wirings[:]
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("PODWALL_CNI_BIN is not set: in CI the CNI wirings must be tested")
	}
	return []lab.Wiring{lab.Routed, lab.Bridge}
}

func eachWiring(t *testing.T, test func(t *testing.T, b *bed)) {
	for _, w := range wirings(t) {
		t.Run(string(w), func(t *testing.T) {
			test(t, newBed(t, lab.Config{Wiring: w, Nodes: []string{"node1", "node2"}, CNIBin: os.Getenv("PODWALL_CNI_BIN")}))
		})
	}
}

// bed is a lab.Bed and a prober that watches all of it.
type bed struct {
	*testing.T
	*lab.Bed
	prober *probe.Prober
}

func newBed(t *testing.T, cfg lab.Config) *bed {
	t.Helper()
	inner, err := lab.NewBed(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := inner.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := probe.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bed{t, inner, p}
	for _, n := range cfg.Nodes {
		b.watch(inner.Node(n))
	}
	return b
}

func (b *bed) watch(e *lab.Endpoint) {
	b.Helper()
	if err := b.prober.Add(e.Probe()); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) pod(name, node string, ips ...string) *lab.Endpoint {
	b.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	e, err := b.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: namespace, Name: short}, Node: node, IPs: addrs(ips)})
	if err != nil {
		b.Fatal(err)
	}
	b.watch(e)
	return e
}

func (b *bed) host(name string, ips ...string) *lab.Endpoint {
	b.Helper()
	e, err := b.AddHost(name, addrs(ips))
	if err != nil {
		b.Fatal(err)
	}
	b.watch(e)
	return e
}

func addrs(texts []string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// small is the cluster of most tests: two pods on the first node, one on the
// second, a host far away and one inside the second node's range of pods.
func (b *bed) small() {
	b.Helper()
	b.pod("x/a", "node1", "10.244.1.5", "fd00:244:1::5")
	b.pod("x/b", "node1", "10.244.1.6", "fd00:244:1::6")
	b.pod("y/c", "node2", "10.244.2.5", "fd00:244:2::5")
	b.host("far", "93.184.216.34", "2001:db8:cafe::a")
	b.host("near", "10.244.2.200", "fd00:244:2::c8")
}

// flow is one probe and where it must arrive.
type flow struct {
	probe.Probe
	to *lab.Endpoint
}

func (b *bed) flow(from, to *lab.Endpoint, dst netip.Addr, proto packet.Protocol) flow {
	return flow{probe.Probe{ID: b.prober.NextID(), Proto: proto, From: from.Name, Dst: dst, DstPort: 80}, to}
}

// matrix is every pair of endpoints, family and protocol.
func (b *bed) matrix() []flow {
	var list []flow
	for _, from := range b.Endpoints() {
		for _, to := range b.Endpoints() {
			for _, dst := range to.Addrs {
				for _, proto := range packet.Protocols {
					if from != to && slices.ContainsFunc(from.Addrs, func(a netip.Addr) bool { return a.Is4() == dst.Is4() }) {
						list = append(list, b.flow(from, to, dst, proto))
					}
				}
			}
		}
	}
	return list
}

func (b *bed) send(flows []flow) (ids []uint32) {
	b.Helper()
	var batch []probe.Probe
	for _, f := range flows {
		batch, ids = append(batch, f.Probe), append(ids, f.ID)
	}
	if err := b.prober.Send(batch); err != nil {
		b.Fatal(err)
	}
	return ids
}

// mustArrive sends the flows and wants each at its destination, with its own
// source address, and answered.
func (b *bed) mustArrive(flows []flow) {
	b.Helper()
	ids := b.send(flows)
	if _, err := b.prober.Collect(b.Context(), ids, nil, time.Now().Add(time.Minute)); err != nil {
		b.Fatal(err)
	}
	for _, f := range flows {
		if got, want := b.arrivedAt(f.ID), []string{f.to.Name}; !cmp.Equal(got, want) {
			b.Errorf("%s: arrived at %q, want %q", describe(f), got, want)
		}
		for _, a := range b.prober.Arrived(f.ID) {
			if from := b.find(f.From); !slices.Contains(from.Addrs, a.Src.Addr()) {
				b.Errorf("%s: came from %s, want one of %s", describe(f), a.Src, from.Addrs)
			}
		}
	}
	for _, id := range b.prober.WaitReplies(b.Context(), answerable(flows), time.Now().Add(time.Minute)) {
		i := slices.IndexFunc(flows, func(f flow) bool { return f.ID == id })
		b.Errorf("%s: no answer", describe(flows[i]))
	}
}

// answerable leaves out SCTP to nodes: a kernel does not answer it while a raw
// socket watches.
func answerable(flows []flow) (ids []uint32) {
	for _, f := range flows {
		if f.Proto != packet.SCTP || f.to.Kind != lab.NodeEndpoint {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

func (b *bed) arrivedAt(id uint32) []string {
	var list []string
	for _, a := range b.prober.Arrived(id) {
		list = append(list, a.Endpoint)
	}
	return list
}

func (b *bed) find(name string) *lab.Endpoint {
	for _, e := range b.Endpoints() {
		if e.Name == name {
			return e
		}
	}
	return nil
}

func describe(f flow) string {
	return fmt.Sprintf("%s from %s to %s (%s)", f.Proto, f.From, f.to.Name, f.Dst)
}
