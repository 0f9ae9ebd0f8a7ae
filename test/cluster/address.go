// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"fmt"
	"net/netip"
	"strings"
)

// The addresses of a cluster. All of them live in namespaces of the cluster
// only, so every cluster has the same ones. The control plane is the first
// address of the fabric; node i, counted from one, is the address 10+i.
const (
	controlPort = 6443
	services4   = "10.96.0.0/16"
	services6   = "fd00:96::/112"
	podRange4   = "10.244.0.0/16"
	podRange6   = "fd00:244::/32"
)

// plan gives out the addresses of a cluster.
type plan struct{ dual bool }

// list keeps the second of two texts only in a dual-stack cluster.
func (p plan) list(four, six string) []string {
	if !p.dual {
		return []string{four}
	}
	return []string{four, six}
}

func (p plan) join(four, six string) string { return strings.Join(p.list(four, six), ",") }

func (p plan) fabric(host int) []netip.Prefix {
	return prefixes(p.list(fmt.Sprintf("172.30.0.%d/24", host), fmt.Sprintf("fd00:30::%x/64", host)))
}

func (p plan) node(i int) []netip.Prefix { return p.fabric(10 + i) }

func (p plan) pods(i int) []netip.Prefix {
	return prefixes(p.list(fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:244:%x::/64", i)))
}

// apiNames are the addresses of the service kubernetes.
func (p plan) apiNames() []netip.Addr {
	var list []netip.Addr
	for _, text := range p.list("10.96.0.1", "fd00:96::1") {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func (p plan) everywhere() []netip.Prefix { return prefixes(p.list("0.0.0.0/0", "::/0")) }

// any is the address to listen at for all families.
func (p plan) any() string {
	if p.dual {
		return "::"
	}
	return "0.0.0.0"
}

func prefixes(texts []string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

func texts[T fmt.Stringer](values []T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = v.String()
	}
	return list
}

// addresses drops the lengths of prefixes.
func addresses(list []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, len(list))
	for i, p := range list {
		addrs[i] = p.Addr()
	}
	return addrs
}
