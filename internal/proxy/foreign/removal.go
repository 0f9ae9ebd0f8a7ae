// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/leftover"
)

func (p *Plan) has(proxy, where string) bool {
	return slices.ContainsFunc(p.Found, func(f Found) bool {
		return f.Proxy == proxy && (where == "" || f.Where == where)
	})
}

// removeTables plans the removal of tables that belong to a proxy as a whole.
func (p *Plan) removeTables(inv Inventory) {
	s := Step{Text: "tables of nftables"}
	for _, t := range inv.Tables {
		if tableOf(t.Key) != "" {
			s.Removal.Tables = append(s.Removal.Tables, t.Key)
		}
	}
	if !s.Removal.Empty() {
		p.Steps = append(p.Steps, s)
	}
}

// removeChains plans the removal of chains in tables of iptables, and of the rules of the kernel's own
// chains that lead into them, in one transaction for all tables and both families.
func (p *Plan) removeChains(inv Inventory) {
	s := Step{Text: "rules of iptables (nft)"}
	own := func(t leftover.Key, chain string) bool {
		proxy := chainOf(t.Name, chain)
		return proxy != "" && p.has(proxy, inNFT)
	}
	for _, t := range inv.Tables {
		if iptables(t.Key) {
			p.removeChainsOf(t, own, &s.Removal)
		}
	}
	if !s.Removal.Empty() {
		p.Steps = append(p.Steps, s)
	}
}

func (p *Plan) removeChainsOf(t leftover.Table, own func(leftover.Key, string) bool, r *leftover.Removal) {
	kept := p.keptChains(t, own)
	for _, c := range t.Chains {
		switch {
		case own(t.Key, c.Name) && !kept[c.Name]:
			r.Chains = append(r.Chains, leftover.ChainName{Table: t.Key, Name: c.Name})
			continue
		case !c.Base:
			continue // its rules are another program's, or kept
		}
		for _, rule := range c.Jumps {
			if own(t.Key, rule.Target) && (!kept[rule.Target] || rule.Target != postroutingChain) {
				r.Jumps = append(r.Jumps, leftover.Jump{Table: t.Key, Chain: c.Name, Rule: rule})
			}
		}
	}
}

// keptChains returns the chains of a table that must stay because chains of other programs lead to them. A
// hostPort of the portmap plugin may mark packets in KUBE-MARK-MASQ for KUBE-POSTROUTING, which masquerades
// packets with the mark and does nothing else. If anything else is used, all chains stay, without the rules
// that lead to them from the hooks.
func (p *Plan) keptChains(t leftover.Table, own func(leftover.Key, string) bool) map[string]bool {
	kept := map[string]bool{}
	for _, c := range t.Chains {
		if c.Base || own(t.Key, c.Name) {
			continue
		}
		for _, rule := range c.Jumps {
			if !own(t.Key, rule.Target) {
				continue
			}
			p.Left = append(p.Left, Left{What: fmt.Sprintf("chain %s %s", t, rule.Target),
				Why:  "chain " + c.Name + " of another program leads to it",
				Cure: "nothing: it changes only what that program sends there", Harmless: true})
			if rule.Target == markChain {
				kept[markChain], kept[postroutingChain] = true, true
				continue
			}
			for _, all := range t.Chains {
				kept[all.Name] = true
			}
		}
	}
	return kept
}

// removeSets plans the removal of ipsets, which only the rules of iptables refer to.
func (p *Plan) removeSets(inv Inventory) {
	s := Step{Text: "ipsets"}
	for _, name := range inv.Sets {
		if kubeProxySet.MatchString(name) && p.has(KubeProxy, "") ||
			kubeRouterSet.MatchString(name) && p.has(KubeRouter, "") {
			s.Sets = append(s.Sets, name)
		}
	}
	slices.Sort(s.Sets)
	switch {
	case len(s.Sets) == 0:
	case p.has(KubeProxy, inLegacy), p.has(KubeRouter, inLegacy):
		p.Left = append(p.Left, Left{What: "ipsets " + few(s.Sets), Why: "rules of iptables-legacy use them",
			Cure: "remove those rules first, then start again with --takeover"})
	default:
		p.Steps = append(p.Steps, s)
	}
}

// removeLinks plans the removal of the interfaces that hold addresses of Services. Connections that go
// through IPVS need the addresses, so they stay while IPVS has virtual services. With nftables new connections are
// translated before they meet IPVS.
func (p *Plan) removeLinks(inv Inventory) {
	s := Step{Text: "interfaces with addresses of Services"}
	for _, l := range inv.Links {
		if linkOf(l.Name) == "" || l.Addresses == 0 {
			continue
		}
		what := fmt.Sprintf("interface %s with %d addresses", l.Name, l.Addresses)
		switch {
		case l.Kind != "dummy":
			p.Left = append(p.Left, Left{What: what, Why: "it is no dummy interface but a " + l.Kind,
				Cure: "see which program made it"})
		case inv.IPVS:
			p.Left = append(p.Left, Left{What: what,
				Why: "IPVS has virtual services, whose connections need the addresses",
				Cure: "when they have ended (ipvsadm -L -n shows them), remove all virtual services with ipvsadm -C, " +
					"if no other program uses IPVS, then the interface with: ip link delete " + l.Name})
		default:
			s.Links = append(s.Links, l.Name)
		}
	}
	if len(s.Links) > 0 {
		p.Steps = append(p.Steps, s)
	}
}

// leaveLegacy names the chains that netlink cannot remove. Chains that only masquerade marked packets are
// left out: a hostPort may use them.
func (p *Plan) leaveLegacy(inv Inventory) {
	for _, t := range inv.Legacy {
		n := 0
		for _, c := range t.Chains {
			if proxy := chainOf(t.Name, c); proxy != "" && c != markChain && c != postroutingChain &&
				p.has(proxy, inLegacy) {
				n++
			}
		}
		if n > 0 {
			p.Left = append(p.Left, Left{What: fmt.Sprintf("%d chains in table %s of iptables-legacy", n, t),
				Why:  "iptables-legacy cannot be changed over netlink; new connections meet podwall's rules first",
				Cure: "on the node, as root:\n" + t.Recipe(legacyChains)})
		}
	}
}

// legacyChains matches the chains that the recipe removes, in awk's syntax.
const legacyChains = `KUBE-(SERVICES|NODEPORTS|NODE-PORT|EXTERNAL-SERVICES|FORWARD|PROXY-(FIREWALL|CANARY)|` +
	`LOAD-BALANCER|SOURCE-RANGES-FIREWALL|IPVS-(OUT-)?FILTER|(SVC|SVL|SEP|FW|EXT|XLB)-[A-Z2-7]+|` +
	`ROUTER-(HAIRPIN|SERVICES))`
