// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// olderTable is the cast's table as of a release before the sets of non-pod interfaces and of sources per
// interface: interfaces of isolated pods were closed, and a source had to be any local pod.
const olderTable = `
add table inet podwall
delete table inet podwall
table inet podwall {
	counter drop-egress { }
	counter drop-invalid { }
	counter drop-ingress { }
	counter drop-self-test { }
	counter drop-spoofed { }
	counter drop-unknown-pod { }
	set egress-links { type ifname; elements = { LINKS } }
	set ingress-links { type ifname; elements = { LINKS } }
	set saved-settings { type ifname; comment "settings to restore with --cleanup-config"; RESTORE }
	SETS
	chain input {
		type nat hook input priority -190; policy accept;
		goto to-node
	}
	chain postrouting {
		type nat hook postrouting priority -190; policy accept;
		ip saddr . ip daddr @hairpin4 accept
		ip6 saddr . ip6 daddr @hairpin6 accept
		iifname @egress-links jump antispoof
		oifname @egress-links meta iif 0 fib saddr type != local jump antispoof
		ip saddr vmap @pod-egress4
		ip6 saddr vmap @pod-egress6
		goto to-pod
	}
	chain untracked-input {
		type filter hook input priority 0; policy accept;
		ct state invalid,untracked goto to-node
	}
	chain antispoof {
		ip saddr @local-pods4 return
		ip6 saddr @local-pods6 return
		counter name drop-spoofed drop
	}
	chain self-test { counter name drop-self-test drop; }
	chain to-node {
		ip6 daddr ff00::/8 icmpv6 type 130-132 return
		ip6 hoplimit 255 icmpv6 type 133-137 return
		ip6 daddr ff00::/8 icmpv6 type 143 return
		iifname @egress-links jump antispoof
		ip saddr vmap @pod-egress4
		ip6 saddr vmap @pod-egress6
	}
	chain to-pod {
		ip daddr vmap @pod-ingress4
		ip6 daddr vmap @pod-ingress6
		oifname @ingress-links meta iif 0 fib saddr type local accept
		oifname @ingress-links counter name drop-unknown-pod drop
	}
	chain tracking { ct state new return; }
}
`

// olderSets are the sets and the pods' chains of one family.
const olderSets = `
	set local-podsN { type IPTYPE; elements = { VICTIM, PEER, JAILED, STRANGER } }
	set hairpinN { type IPTYPE . IPTYPE; elements = { VICTIM . VICTIM, PEER . PEER, JAILED . JAILED, STRANGER . STRANGER } }
	set podsN-peer { type IPTYPE; elements = { PEER } }
	chain egressN-jailed { counter name drop-egress drop; }
	chain ingressN-victim {
		IP saddr @podsN-peer accept
		meta iif 0 fib saddr type local accept
		counter name drop-ingress drop
	}
	map pod-egressN { type IPTYPE : verdict; elements = { JAILED : jump egressN-jailed } }
	map pod-ingressN { type IPTYPE : verdict; elements = { VICTIM : goto ingressN-victim, PEER : accept, JAILED : accept, STRANGER : accept, SELFTEST : goto self-test } }
`

// older writes the table for this world, and replaces it in one transaction.
func (w *world) older() string {
	sets, links := "", fmt.Sprintf("%q", lab.BridgeName)
	if w.wiring == lab.Routed {
		links = fmt.Sprintf("%q, %q", w.bed.Pod(key(victim)).HostDevice, w.bed.Pod(key(jailed)).HostDevice)
	}
	for family, names := range [][]string{{"4", "ipv4_addr", "ip", "192.0.2.254"}, {"6", "ipv6_addr", "ip6", "2001:db8:706f:6477:616c:6c00:0:1"}} {
		words := []string{"local-podsN", "local-pods" + names[0], "hairpinN", "hairpin" + names[0],
			"podsN", "pods" + names[0], "egressN", "egress" + names[0],
			"ingressN", "ingress" + names[0], "pod-egressN", "pod-egress" + names[0], "pod-ingressN", "pod-ingress" + names[0],
			"IPTYPE", names[1], "IP saddr", names[2] + " saddr", "SELFTEST", names[3]}
		for _, a := range cast() {
			words = append(words, strings.ToUpper(key(a.name).Name), a.addrs[family].String())
		}
		sets += strings.NewReplacer(words...).Replace(olderSets)
	}
	restore := ""
	if w.wiring == lab.Bridge {
		restore = fmt.Sprintf("elements = { %q comment \"nf_call_iptables=0 nf_call_ip6tables=0 no_linklocal_learn=0\", "+
			"\"sysctl:vlan\" comment \"bridge-nf-filter-vlan-tagged=0\" }", lab.BridgeName)
	}
	return strings.NewReplacer("LINKS", links, "SETS", sets, "RESTORE", restore).Replace(olderTable)
}

// replace writes a table over ours as an agent does, beside a copy: nft's own replacement lets a packet
// under way pass.
func (w *world) replace(table string) {
	w.t.Helper()
	w.nft(strings.ReplaceAll(table, "inet podwall", "inet podwall-copy"))
	w.nft(table)
	w.nft("delete table inet podwall-copy")
}

// newer is what a later release may have in the table and this one does not know.
const newer = `chain tracking { ct state new return; }
	quota later-quota { over 1 mbytes }
	limit later-limit { rate 400/second }
	set later-set { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { 10.0.0.0/8 . tcp . 1-100 } }
	map later-map { type mark : verdict; elements = { 7 : accept } }
	chain later-base {
		type filter hook prerouting priority -300; policy accept;
		meta mark vmap @later-map
		ip saddr . ip protocol . th dport @later-set limit rate 5/second meta mark set 9
		goto later
	}
	chain later {
		quota name later-quota
		ct mark set meta mark
		numgen inc mod 2 vmap { 0 : return, 1 : continue }
	}`

// A new release finds the table of an older one, or a table that only resembles ours, and takes it over
// without a moment without verdicts. So does an older release that finds the table of a newer one, as after
// a rollback.
func TestUpgradesUnderTraffic(t *testing.T) {
	needs(t, "nft")
	shapes := []struct {
		name   string
		change *strings.Replacer
	}{
		{"an older release", strings.NewReplacer()},
		{"a newer release", strings.NewReplacer("chain tracking { ct state new return; }", newer)},
		{"chains of other names", strings.NewReplacer("chain postrouting", "chain judge", "chain input", "chain node",
			"to-pod", "deliver", "antispoof", "who")},
		{"the names before ADR 0028", strings.NewReplacer("chain antispoof", "chain known-source",
			"jump antispoof", "jump known-source", "hairpin", "self", "local-pods", "local", "pod-egress", "from", "pod-ingress", "to")},
		{"a set of another type", strings.NewReplacer("set local-pods4 { type ipv4_addr;", "set local-pods4 { type ipv4_addr; flags interval;")},
		{"a base chain at another place", strings.NewReplacer("hook postrouting priority -190", "hook postrouting priority -180")},
	}
	eachWiring(t, func(t *testing.T, w *world) {
		a := w.enforced(w.start())
		want := w.tables()
		tr := w.traffic()
		for range soak.Times(1, 20) {
			for _, shape := range shapes {
				a.Stop()
				w.replace(shape.change.Replace(w.older()))
				if w.tables() == want {
					t.Fatalf("%s: the older table is not another one", shape.name)
				}
				tr.pause(200)
				a = w.enforced(w.start())
				w.same("after the upgrade from "+shape.name, want)
			}
		}
		tr.pause(200)
		tr.finish(false)
	})
}
