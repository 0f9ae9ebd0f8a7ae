// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/source/manifest"
)

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestTheNodesKeepAwayFromUsedAddresses(t *testing.T) {
	plain := addrs("172.30.0.11", "fd00:172:30::11")
	if got := FreeNetwork(nil).Node(0); !slices.Equal(got, plain) {
		t.Errorf("first node %v, want %v", got, plain)
	}
	later := addrs("172.30.0.109", "fd00:172:30::109")
	if got := FreeNetwork(nil).Node(98); !slices.Equal(got, later) {
		t.Errorf("node 98 %v, want %v", got, later)
	}
	used := addrs("172.30.0.200", "172.30.1.1", "fd00:172:30::abcd")
	n := FreeNetwork(used)
	foreign := func(a netip.Addr) bool { return !n.Contains(a) }
	if slices.ContainsFunc(used, n.Contains) || slices.ContainsFunc(n.Node(0), foreign) {
		t.Errorf("network %v with node %v beside %v", n, n.Node(0), used)
	}
}

// Nodes have the addresses of their objects, or those that their pods report; made up ones
// are noted where a policy could name them.
func TestNodesHaveTheAddressesThatAreKnown(t *testing.T) {
	const text = `
{apiVersion: v1, kind: Node, metadata: {name: a}, status: {addresses: [{type: InternalIP, address: 192.168.7.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: b}, status: {podIP: 10.0.0.1, hostIP: 192.168.7.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {nodeName: c}}
`
	const policy = `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: blocks}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.7.0/24}}]}]}
`
	for more, notes := range map[string]int{"": 0, policy: 1} {
		from := manifest.From{Paths: []string{manifest.Stdin}, Text: []byte(text + more)}
		loaded, err := manifest.Load(from)
		if err != nil {
			t.Fatal(err)
		}
		w, err := Build(read(t, text+more), loaded, Options{NodeAddresses: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []netip.Addr
		for _, n := range w.Nodes {
			got = append(got, n.Addrs[0])
		}
		if !slices.Equal(got, addrs("192.168.7.1", "192.168.7.2", "172.30.0.11")) || len(w.Notes) != notes {
			t.Errorf("nodes %v, notes %q", got, w.Notes)
		}
	}
}
