// SPDX-License-Identifier: Apache-2.0

// Package oldfirewall writes rules and sets with the names, the places and the
// effect of those that kube-router's firewall leaves in the kernel, as input of
// iptables-restore and ipset. It says nothing of how kube-router comes to them.
package oldfirewall

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"
)

// Pod is a local pod. Ingress and Egress are the peers that it may talk to in that
// direction; nil stands for all.
type Pod struct {
	Name            string
	Addr            netip.Addr
	Ingress, Egress []netip.Addr
}

// Jumps are the rules in the chains of iptables that lead into the firewall's.
const Jumps = `-I INPUT 1 -m comment --comment "kube-router netpol - 4IA2OSFRMVNDXBVV" -j KUBE-ROUTER-INPUT
-I FORWARD 1 -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
-I OUTPUT 1 -m comment --comment "kube-router netpol - VEAAIY32XVBHCSCY" -j KUBE-ROUTER-OUTPUT
`

// Firewall is what to load for pods of one family: Sets for
// "ipset restore", Rules for "iptables-restore --noflush".
type Firewall struct{ Sets, Rules string }

// New writes the firewall for the pods of one family.
func New(pods []Pod) Firewall {
	var chains, rules, sets strings.Builder
	for _, name := range []string{"KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT",
		"KUBE-NWPLCY-DEFAULT", "KUBE-NWPLCY-COMMON", "KUBE-NWPLCY-TAIL"} {
		fmt.Fprintf(&chains, ":%s - [0:0]\n", name)
	}
	rules.WriteString(Jumps)
	rules.WriteString("-A KUBE-ROUTER-INPUT -d 10.96.0.0/12 -m comment --comment \"allow traffic to " +
		"primary/secondary cluster IP range\" -j RETURN\n")
	rules.WriteString("-A KUBE-NWPLCY-DEFAULT -m comment --comment \"rule to mark traffic matching a network " +
		"policy\" -j MARK --set-xmark 0x10000/0x10000\n")
	rules.WriteString("-A KUBE-NWPLCY-COMMON -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n")
	rules.WriteString("-A KUBE-NWPLCY-TAIL -m mark --mark 0x20000/0x20000 -j ACCEPT\n")
	for _, p := range pods {
		fw := chain("KUBE-POD-FW-", p.Name)
		fmt.Fprintf(&chains, ":%s - [0:0]\n", fw)
		p.leadTo(&rules, fw)
		fmt.Fprintf(&rules, "-A %s -j KUBE-NWPLCY-COMMON\n", fw)
		fmt.Fprintf(&rules, "-A %s -d %s -m addrtype --src-type LOCAL -j ACCEPT\n", fw, p.Addr)
		p.direction(&chains, &rules, &sets, fw, "d", "src", p.Ingress)
		p.direction(&chains, &rules, &sets, fw, "s", "dst", p.Egress)
		fmt.Fprintf(&rules, "-A %s -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/minute --limit-burst 10 -j "+
			"NFLOG --nflog-group 100\n", fw)
		fmt.Fprintf(&rules, "-A %s -m mark ! --mark 0x10000/0x10000 -j REJECT\n", fw)
		fmt.Fprintf(&rules, "-A %s -j MARK --set-xmark 0x0/0x10000\n-A %[1]s -j MARK --set-xmark 0x20000/0x20000\n", fw)
	}
	for _, name := range []string{"KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT"} {
		fmt.Fprintf(&rules, "-A %s -j KUBE-NWPLCY-TAIL\n-A %[1]s -m mark --mark 0x20000/0x20000 -j ACCEPT\n", name)
	}
	text := rules.String()
	if len(pods) > 0 && pods[0].Addr.Is6() {
		text = strings.ReplaceAll(text, "10.96.0.0/12", "fd00:10:96::/112")
		for _, kind := range []string{"neighbour-solicitation", "neighbour-advertisement", "echo-reply"} {
			text += "-A KUBE-NWPLCY-COMMON -p icmpv6 -m icmp6 --icmpv6-type " + kind + " -j ACCEPT\n"
		}
	}
	return Firewall{sets.String(), "*filter\n" + chains.String() + text + "COMMIT\n"}
}

// leadTo writes the rules that lead the pod's packets to its chain.
func (p Pod) leadTo(rules *strings.Builder, fw string) {
	for _, at := range []string{"FORWARD -d", "FORWARD -s", "OUTPUT -d", "OUTPUT -s", "INPUT -s"} {
		fmt.Fprintf(rules, "-A KUBE-ROUTER-%s %s -m comment --comment \"rule to jump traffic of POD name:%s to "+
			"chain %s\" -j %[4]s\n", at, p.Addr, p.Name, fw)
	}
}

// direction writes what one policy means for the pod, or the default.
func (p Pod) direction(chains, rules, sets *strings.Builder, fw, own, peer string, peers []netip.Addr) {
	if peers == nil {
		fmt.Fprintf(rules, "-A %s -%s %s -j KUBE-NWPLCY-DEFAULT\n", fw, own, p.Addr)
		return
	}
	policy := chain("KUBE-NWPLCY-", p.Name+own)
	set := chain(map[string]string{"src": "KUBE-SRC-", "dst": "KUBE-DST-"}[peer], p.Name+own)
	family := "inet"
	if p.Addr.Is6() {
		set, family = "inet6:"+set, "inet6"
	}
	fmt.Fprintf(sets, "create %s hash:ip family %s\n", set, family)
	for _, a := range peers {
		fmt.Fprintf(sets, "add %s %s\n", set, a)
	}
	fmt.Fprintf(chains, ":%s - [0:0]\n", policy)
	fmt.Fprintf(rules, "-A %s -%s %s -j %s\n", fw, own, p.Addr, policy)
	fmt.Fprintf(rules, "-A %s -m set --match-set %s %s -j MARK --set-xmark 0x10000/0x10000\n", policy, set, peer)
}

// chain returns a name as kube-router makes them.
func chain(prefix, of string) string {
	sum := sha256.Sum256([]byte(of))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:16]
}
