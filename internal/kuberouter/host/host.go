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

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/kuberouter"
	"github.com/podwall/podwall/internal/leftover"
	left "github.com/podwall/podwall/internal/leftover/host"
)

// Look reads the inventory. The caller fills IPVS and NotEnforcing.
func Look(ctx context.Context) (inv kuberouter.Inventory, err error) {
	if inv.Tables, err = left.Tables(readsJumps); err != nil {
		return inv, err
	}
	if inv.Sets, err = left.Sets(); err != nil {
		return inv, err
	}
	if inv.Legacy, err = left.Legacy("filter"); err != nil {
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

// readsJumps says where rules matter: kube-router writes to no other table of iptables than filter, and
// its own chains are removed as a whole.
func readsJumps(t leftover.Key, chain string) bool {
	return t.Name == "filter" && !kuberouter.IsFirewallChain(chain)
}

// Remove carries out the plan: rules, chains and tables in one transaction, which the kernel
// applies completely or not at all, then the sets, unless chains of iptables-legacy still use them.
// A set that no longer exists is no error. A rule that no longer exists fails the transaction, and
// the plan must be made again.
func Remove(ctx context.Context, p kuberouter.Plan) error {
	if len(p.Refusals) > 0 {
		return errors.New("the plan says that nothing may be removed")
	}
	if err := left.Remove(leftover.Removal{Jumps: p.Jumps, Chains: p.Chains, Tables: p.Tables}); err != nil {
		return err
	}
	if len(p.Legacy) > 0 {
		return nil // remaining rules use the sets
	}
	return left.Destroy(ctx, p.Sets)
}
