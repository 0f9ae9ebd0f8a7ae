// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package host reads the inventory of the objects that kube-router left on this node, and removes
// those that kuberouter.Decide planned to remove. It works in the network namespace of the process,
// over netlink: no iptables, nft or ipset program is needed.
package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/kuberouter"
)

// Look reads the inventory. The caller fills IPVS and NotEnforcing.
func Look(ctx context.Context) (inv kuberouter.Inventory, err error) {
	if inv.Tables, err = tables(); err != nil {
		return inv, err
	}
	if inv.Sets, err = sets(); err != nil {
		return inv, err
	}
	if inv.Legacy, err = legacyTables(); err != nil {
		return inv, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return inv, fmt.Errorf("listing interfaces: %w", err)
	}
	for _, l := range links {
		inv.Links = append(inv.Links, l.Attrs().Name)
	}
	inv.Running, err = running(ctx)
	return inv, err
}

func families() map[nftables.TableFamily]string {
	return map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}
}

// tables lists the nftables tables of the families ip and ip6: kube-router writes to no other
// family.
func tables() (list []kuberouter.Table, err error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	defer func() { err = errors.Join(err, c.CloseLasting()) }()
	for family, word := range families() {
		found, err := c.ListTablesOfFamily(family)
		if err != nil {
			return nil, fmt.Errorf("listing tables: %w", err)
		}
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("listing chains: %w", err)
		}
		for _, t := range found {
			table := kuberouter.Table{Key: kuberouter.Key{Family: word, Name: t.Name}}
			if table.Chains, err = chainsOf(c, t, chains); err != nil {
				return nil, err
			}
			list = append(list, table)
		}
	}
	return list, nil
}

// chainsOf lists a table's chains. Rules are read only where jumps matter: not in chains that are
// removed as a whole.
func chainsOf(c *nftables.Conn, t *nftables.Table, all []*nftables.Chain) (list []kuberouter.Chain, err error) {
	for _, k := range all {
		if k.Table.Name != t.Name {
			continue
		}
		chain := kuberouter.Chain{Name: k.Name}
		if t.Name == "filter" && !kuberouter.IsFirewallChain(k.Name) {
			rules, err := c.GetRules(t, k)
			if err != nil {
				return nil, fmt.Errorf("reading chain %s of table %s: %w", k.Name, t.Name, err)
			}
			chain.Jumps = jumps(rules)
		}
		list = append(list, chain)
	}
	return list, nil
}

func jumps(rules []*nftables.Rule) (list []kuberouter.Rule) {
	for _, r := range rules {
		for _, e := range r.Exprs {
			v, ok := e.(*expr.Verdict)
			if ok && (v.Kind == expr.VerdictJump || v.Kind == expr.VerdictGoto) {
				list = append(list, kuberouter.Rule{Handle: r.Handle, Target: v.Chain})
			}
		}
	}
	return list
}

// How long sets may stay in use after their last rule was deleted: the kernel frees rules some time
// after the transaction.
const (
	setPatience = 10 * time.Second
	setPause    = 20 * time.Millisecond
)

// Remove carries out the plan: rules, chains and tables in one transaction, which the kernel
// applies completely or not at all, then the sets, unless chains of iptables-legacy still use them.
// A set that no longer exists is no error. A rule that no longer exists fails the transaction, and
// the plan must be made again.
func Remove(ctx context.Context, p kuberouter.Plan) error {
	if len(p.Refusals) > 0 {
		return errors.New("the plan says that nothing may be removed")
	}
	if err := removeRules(p); err != nil {
		return err
	}
	if len(p.Legacy) > 0 {
		return nil // remaining rules use the sets
	}
	var failed []error
	for end, i := time.Now().Add(setPatience), 0; i < len(p.Sets); i++ {
		failed = append(failed, destroy(ctx, p.Sets[i], end))
	}
	return errors.Join(failed...)
}

func removeRules(p kuberouter.Plan) error {
	if len(p.Jumps)+len(p.Chains)+len(p.Tables) == 0 {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	for _, j := range p.Jumps {
		t := table(j.Table)
		if err := c.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: j.Chain, Table: t},
			Handle: j.Handle}); err != nil {
			return fmt.Errorf("deleting a rule of chain %s: %w", j.Chain, err)
		}
	}
	for _, k := range p.Chains { // before the first is deleted: they refer to each other
		c.FlushChain(&nftables.Chain{Name: k.Name, Table: table(k.Table)})
	}
	for _, k := range p.Chains {
		c.DelChain(&nftables.Chain{Name: k.Name, Table: table(k.Table)})
	}
	for _, k := range p.Tables {
		c.DelTable(table(k))
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing chains, nothing was changed: %w", err)
	}
	return nil
}

func table(k kuberouter.Key) *nftables.Table {
	for family, word := range families() {
		if word == k.Family {
			return &nftables.Table{Family: family, Name: k.Name}
		}
	}
	return &nftables.Table{Name: k.Name} // of no family: the kernel refuses it
}
