// SPDX-License-Identifier: Apache-2.0

// Package kuberouter decides which parts of kube-router's firewall to remove from a node on which
// podwall has replaced it. Decide is a function of an Inventory: it reads nothing and changes
// nothing. The package host reads the inventory and carries out the plan.
//
// kube-router leaves its rules in the kernel when it stops. They continue to refuse traffic by the
// policies of that time. Its own --cleanup-config is no solution: it flushes all IPVS services and
// destroys ipsets of other programs.
package kuberouter

import (
	"regexp"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/leftover"
)

// Inventory is the state found on a node.
type Inventory struct {
	// Tables are the nftables tables, including those of iptables-nft. Rules are needed only for
	// tables named filter: kube-router writes to no other table of iptables.
	Tables []Table
	// Sets are the names of all ipsets.
	Sets []string
	// Legacy are the tables of iptables-legacy, which nftables does not show.
	Legacy []LegacyTable
	// Links are the names of the interfaces.
	Links []string
	// IPVS is true if IPVS has services.
	IPVS bool
	// Running lists signs that kube-router runs, in words.
	Running []string
	// NotEnforcing is the reason why podwall does not enforce on this node; empty if it does.
	NotEnforcing string
}

// Key identifies a table.
type Key = leftover.Key

// Table is a table of nftables.
type Table = leftover.Table

// Chain is a chain of a table.
type Chain = leftover.Chain

// Rule is a rule that leads to another chain.
type Rule = leftover.Rule

// LegacyTable is a table of iptables-legacy.
type LegacyTable = leftover.LegacyTable

// Jump is a rule to remove.
type Jump = leftover.Jump

// ChainName is a chain to remove.
type ChainName = leftover.ChainName

// The names that the firewall uses. The digest is 16 characters of base 32 in every release; a name
// of another form belongs to another program.
const digest = `[A-Z2-7]{16}`

var (
	firewallChain = regexp.MustCompile(`^(KUBE-ROUTER-(INPUT|FORWARD|OUTPUT)|KUBE-POD-FW-` + digest + `|KUBE-NWPLCY-(` +
		digest + `|DEFAULT|COMMON|TAIL))$`)
	firewallSet = regexp.MustCompile(`^(inet6:)?(KUBE-(SRC|DST)-` + digest + `|kube-router-local-pods)$`)
	alike       = regexp.MustCompile(`^(inet6:)?KUBE-(POD-FW|NWPLCY|SRC|DST)-`)
	proxyChain  = regexp.MustCompile(`^KUBE-ROUTER-(SERVICES|HAIRPIN)$`)
	proxySet    = regexp.MustCompile(`^(inet6:)?kube-router-(local-ips|svip|svip-prt|service-ips|` +
		`ipvs-services|ipvs-lb-health|node-mac)$`)
	routerSet = regexp.MustCompile(`^(inet6:)?kube-router-(pod-subnets|node-ips)$`)
)

// IsFirewallChain reports whether the name is one that kube-router's firewall gives to chains.
func IsFirewallChain(name string) bool {
	return strings.HasPrefix(name, "KUBE-") && firewallChain.MatchString(name) // most names end at the first
}

// The table of iptables, in both families, and those of --use-nftables-for-netpol.
const filterTable = "filter"

func ownTable(k Key) bool {
	return k == Key{Family: "ip", Name: "kube-router-filter-ipv4"} ||
		k == Key{Family: "ip6", Name: "kube-router-filter-ipv6"}
}

func iptables(k Key) bool { return k.Name == filterTable && (k.Family == "ip" || k.Family == "ip6") }

// Plan lists the objects to remove, in this order: rules, chains and tables in one transaction,
// then the sets that they used.
type Plan struct {
	// Refusals are the reasons why nothing may be removed now.
	Refusals []Refusal
	Jumps    []Jump // in other chains, into those of the firewall
	Chains   []ChainName
	Tables   []Key
	Sets     []string
	// Legacy are tables of iptables-legacy with the firewall's chains. They are
	// not removed: see Recipe.
	Legacy []LegacyTable
	// Left are objects with names similar to the firewall's but of another form.
	Left []string
}

// Refusal is a reason to remove nothing, with its cure.
type Refusal struct{ Why, Cure string }

// Options are the operator's choices.
type Options struct {
	// KeepBridge says that the interface kube-bridge is no sign of kube-router's router.
	KeepBridge bool
}

// Decide returns the plan. With refusals the rest of the plan is still filled, to be shown.
func Decide(inv Inventory, o Options) Plan {
	var p Plan
	for _, t := range inv.Tables {
		switch {
		case ownTable(t.Key):
			p.Tables = append(p.Tables, t.Key)
		case iptables(t.Key):
			p.takeChains(t)
		}
	}
	for _, s := range inv.Sets {
		switch {
		case firewallSet.MatchString(s):
			p.Sets = append(p.Sets, s)
		case alike.MatchString(s):
			p.Left = append(p.Left, "ipset "+s)
		}
	}
	for _, t := range inv.Legacy {
		t.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(name string) bool { return !IsFirewallChain(name) })
		if iptables(t.Key) && len(t.Chains) > 0 {
			p.Legacy = append(p.Legacy, t)
		}
	}
	slices.Sort(p.Sets)
	p.Refusals = refusals(inv, o)
	return p
}

// takeChains plans the removal of the firewall's chains of a table, and of the rules that lead into
// them.
func (p *Plan) takeChains(t Table) {
	for _, c := range t.Chains {
		if IsFirewallChain(c.Name) {
			p.Chains = append(p.Chains, ChainName{Table: t.Key, Name: c.Name})
			continue
		}
		if alike.MatchString(c.Name) {
			p.Left = append(p.Left, "chain "+t.String()+" "+c.Name)
		}
		for _, r := range c.Jumps {
			if IsFirewallChain(r.Target) {
				p.Jumps = append(p.Jumps, Jump{Table: t.Key, Chain: c.Name, Rule: r})
			}
		}
	}
}

// Nothing reports whether there is nothing to remove.
func (p Plan) Nothing() bool {
	return len(p.Jumps)+len(p.Chains)+len(p.Tables)+len(p.Sets)+len(p.Legacy) == 0
}

// Names lists the chains of the firewall, sorted. kube-router gives them new names with each sync,
// so a different list a moment later shows that it runs.
func Names(inv Inventory) []string {
	var list []string
	for _, t := range inv.Tables {
		for _, c := range t.Chains {
			if IsFirewallChain(c.Name) {
				list = append(list, t.String()+" "+c.Name)
			}
		}
	}
	for _, t := range inv.Legacy {
		for _, name := range t.Chains {
			if IsFirewallChain(name) {
				list = append(list, "legacy "+t.String()+" "+name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// refusals returns the reasons against the removal.
func refusals(inv Inventory, o Options) (list []Refusal) {
	for _, sign := range inv.Running {
		list = append(list, Refusal{"kube-router runs: " + sign,
			"delete its DaemonSet, or stop it on this node; it would write its rules again. (k3s runs the same " +
				"firewall inside its own process: restart it with --disable-network-policy)"})
	}
	if signs := proxySigns(inv); len(signs) > 0 {
		list = append(list, Refusal{"kube-router's service proxy is in use: " + strings.Join(signs, ", "),
			"let kube-proxy take over the Services first, then remove the remains of the service proxy, or restart " +
				"the node"})
	}
	if signs := routerSigns(inv, o); len(signs) > 0 {
		cure := "podwall does not route: keep kube-router with --run-firewall=false for that, or change the pod " +
			"network first"
		if slices.Equal(signs, []string{bridgeSign}) {
			cure += ". If kube-router never ran with --run-router here, a CNI configuration made this bridge " +
				"(10-kuberouter.conf of the firewall-only DaemonSet does): " +
				"then use --remove-kube-router-firewall=now-beside-kube-bridge"
		}
		list = append(list, Refusal{"kube-router's router is in use: " + strings.Join(signs, ", "), cure})
	}
	if inv.NotEnforcing != "" {
		list = append(list, Refusal{"podwall does not enforce on this node: " + inv.NotEnforcing,
			"start podwall-agent and wait until /readyz answers 200: without it the removal would open the node"})
	}
	return list
}

const bridgeSign = "interface kube-bridge"

func proxySigns(inv Inventory) (signs []string) {
	for _, t := range inv.Tables {
		for _, c := range t.Chains {
			if proxyChain.MatchString(c.Name) {
				signs = append(signs, "chain "+t.String()+" "+c.Name)
			}
		}
	}
	for _, t := range inv.Legacy {
		for _, name := range t.Chains {
			if proxyChain.MatchString(name) {
				signs = append(signs, "chain "+t.String()+" "+name+" of iptables-legacy")
			}
		}
	}
	for _, s := range inv.Sets {
		if proxySet.MatchString(s) {
			signs = append(signs, "ipset "+s)
		}
	}
	if slices.Contains(inv.Links, "kube-dummy-if") {
		signs = append(signs, "interface kube-dummy-if")
	}
	// kube-proxy in IPVS mode binds the addresses of Services to kube-ipvs0.
	if inv.IPVS && !slices.Contains(inv.Links, "kube-ipvs0") {
		signs = append(signs, "IPVS has services that are not kube-proxy's (there is no interface kube-ipvs0)")
	}
	return signs
}

func routerSigns(inv Inventory, o Options) (signs []string) {
	for _, s := range inv.Sets {
		if routerSet.MatchString(s) {
			signs = append(signs, "ipset "+s)
		}
	}
	if slices.Contains(inv.Links, "kube-bridge") && !o.KeepBridge {
		signs = append(signs, bridgeSign)
	}
	return signs
}
