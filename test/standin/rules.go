// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
)

// The fixed chains, and the marks: a policy allows, and all of a pod's checks
// are passed.
const (
	input       = "KUBE-ROUTER-INPUT"
	forward     = "KUBE-ROUTER-FORWARD"
	output      = "KUBE-ROUTER-OUTPUT"
	byDefault   = "KUBE-NWPLCY-DEFAULT"
	inCommon    = "KUBE-NWPLCY-COMMON"
	tail        = "KUBE-NWPLCY-TAIL"
	allowed     = "0x10000/0x10000"
	passed      = "0x20000/0x20000"
	serviceCIDR = "10.96.0.0/12"
	nodePorts   = "30000:32767"
)

// rules are what goes into the kernel of one node.
type rules struct {
	sets   []set
	chains []string
	lines  []string
}

// set is an ipset; an entry is as `ipset add` takes it.
type set struct {
	name, kind string
	entries    []string
}

// render makes the rules of a node. The version goes into the names of chains.
func render(c objects, node, version string) (rules, error) {
	r := rules{chains: []string{input, forward, output, byDefault, inCommon, tail}}
	slices.SortFunc(c.policies, func(a, b policy) int {
		return strings.Compare(a.Namespace+"/"+a.Name,
			b.Namespace+"/"+b.Name)
	})
	r.common()
	chains := make([]string, len(c.policies))
	for i := range c.policies {
		p := &c.policies[i]
		chains[i] = named("KUBE-NWPLCY-", p.Namespace, p.Name, version)
		if err := r.policy(c, p, chains[i]); err != nil {
			return rules{}, fmt.Errorf("policy %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	for _, one := range localPods(c, node, version) {
		if err := r.pod(c, one.pod, one.chain, chains); err != nil {
			return rules{}, err
		}
	}
	for _, top := range []string{input, forward, output} {
		r.add(top, "-j "+tail)
		r.add(top, "-m mark --mark "+passed+" -j ACCEPT")
	}
	return r, nil
}

// placed is a pod with its chain.
type placed struct {
	pod   pod
	chain string
}

// localPods are in the order of their chains' names, which is as good as none.
func localPods(c objects, node, version string) (all []placed) {
	for _, p := range c.pods {
		if p.node == node {
			all = append(all, placed{p, named("KUBE-POD-FW-", p.namespace, p.name, version)})
		}
	}
	slices.SortFunc(all, func(a, b placed) int { return strings.Compare(a.chain, b.chain) })
	return all
}

// named is a name of at most 28 characters, which iptables takes.
func named(prefix string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:16]
}

func (r *rules) add(chain, rule string) { r.lines = append(r.lines, "-A "+chain+" "+rule) }

// common writes what does not depend on the cluster.
func (r *rules) common() {
	r.add(byDefault, "-j MARK --set-xmark "+allowed)
	r.add(inCommon, "-m conntrack --ctstate INVALID -j DROP")
	r.add(inCommon, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	for _, kind := range []string{"echo-request", "destination-unreachable", "time-exceeded"} {
		r.add(inCommon, "-p icmp -m icmp --icmp-type "+kind+" -j ACCEPT")
	}
	r.add(tail, "-m mark --mark "+passed+" -j ACCEPT")
	r.add(input, "-d "+serviceCIDR+" -j RETURN")
	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		r.add(input, "-p "+protocol+" -m addrtype --dst-type LOCAL -m multiport --dports "+nodePorts+" -j RETURN")
	}
}

// pod writes the chain of a local pod, and the jumps to it.
func (r *rules) pod(c objects, p pod, chain string, policyChains []string) error {
	r.chains = append(r.chains, chain)
	note := fmt.Sprintf(` -m comment --comment "pod %s/%s"`, p.namespace, p.name)
	from, to, bridged := "-s "+p.addr.String(), "-d "+p.addr.String(), " -m physdev --physdev-is-bridged"
	jump := note + " -j " + chain
	for _, match := range []string{to, to + bridged, from, from + bridged} {
		r.add(forward, match+jump)
	}
	r.add(output, to+jump)
	r.add(output, from+jump)
	r.add(input, from+jump)

	r.add(chain, "-j "+inCommon)
	r.add(chain, to+" -m addrtype --src-type LOCAL"+note+" -j ACCEPT")
	if err := r.policiesOf(c, p, chain, policyChains); err != nil {
		return err
	}
	r.add(chain, "-m mark ! --mark "+allowed+" -m limit --limit 10/minute --limit-burst 10"+note+
		" -j NFLOG --nflog-group 100")
	r.add(chain, "-m mark ! --mark "+allowed+note+" -j REJECT")
	r.add(chain, "-j MARK --set-xmark 0x0/0x10000")
	r.add(chain, "-j MARK --set-xmark "+passed)
	return nil
}

// policiesOf writes the jumps to the chains of the policies that select a pod,
// and before them one for each direction that none covers. A policy of both
// types is entered without a look at the address, which lets its rules for one
// direction allow the other: what this stands for does so too.
func (r *rules) policiesOf(c objects, p pod, chain string, policyChains []string) error {
	from, to := "-s "+p.addr.String(), "-d "+p.addr.String()
	var jumps []string
	var in, out bool
	for i := range c.policies {
		pol := &c.policies[i]
		ok, err := selects(pol, p)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		ingress, egress := types(pol)
		in, out = in || ingress, out || egress
		match := ""
		switch {
		case !egress:
			match = to + " "
		case !ingress:
			match = from + " "
		}
		jumps = append(jumps, fmt.Sprintf(`%s-m comment --comment "policy %s/%s" -j %s`, match, pol.Namespace,
			pol.Name, policyChains[i]))
	}
	if !in {
		r.add(chain, to+" -j "+byDefault)
	}
	if !out {
		r.add(chain, from+" -j "+byDefault)
	}
	for _, j := range jumps {
		r.add(chain, j)
	}
	return nil
}

// hooks are the chains of the kernel, whose first rule leads to ours.
func hooks() []string { return []string{"INPUT", "FORWARD", "OUTPUT"} }

// chainText is for iptables-restore, in one transaction.
func (r *rules) chainText() string {
	var b strings.Builder
	b.WriteString("*filter\n")
	for _, c := range r.chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for _, line := range r.lines {
		b.WriteString(line + "\n")
	}
	for _, hook := range hooks() {
		fmt.Fprintf(&b, "-I %s 1 -j KUBE-ROUTER-%[1]s\n", hook)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// removalText undoes chainText.
func (r *rules) removalText() string {
	var b strings.Builder
	b.WriteString("*filter\n")
	for _, hook := range hooks() {
		fmt.Fprintf(&b, "-D %s -j KUBE-ROUTER-%[1]s\n", hook)
	}
	for _, verb := range []string{"-F", "-X"} {
		for _, c := range r.chains {
			fmt.Fprintf(&b, "%s %s\n", verb, c)
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// setText is for ipset restore.
func (r *rules) setText() string {
	var b strings.Builder
	for _, s := range r.sets {
		fmt.Fprintf(&b, "create %s %s family inet\nflush %[1]s\n", s.name, s.kind)
		for _, e := range s.entries {
			fmt.Fprintf(&b, "add %s %s\n", s.name, e)
		}
	}
	return b.String()
}
