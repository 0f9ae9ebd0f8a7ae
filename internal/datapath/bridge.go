// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// bridgeTable is the known state of the table of family bridge, which binds addresses to ports.
type bridgeTable struct {
	actual *nft.Table // nil for no table
	known  bool
	bound  bool // the bindings that an earlier process left in it are taken over
}

// readBridge reads that table if its state is unknown. The first time it also takes over which pod an
// earlier process recorded at which port.
func (d *Datapath) readBridge() (err error) {
	t := &d.bridge
	if t.known {
		return nil
	}
	if t.actual, err = d.conn.Of(ruleset.BridgeTable()).Read(); err != nil {
		return err
	}
	if t.known = true; !t.bound {
		t.bound = true
		d.links.Bind(bindings(t.actual, d.table.actual))
	}
	return nil
}

// bindings joins two tables: one holds the port of each address, the other holds the pod.
func bindings(bridge, judging *nft.Table) (list []links.Binding) {
	for _, at := range ruleset.PortsInForce(bridge) {
		if pod, id := ruleset.HolderOf(judging, at.Addr); pod != "" {
			list = append(list, links.Binding{
				Pod: pod, ID: id, Addr: at.Addr, Port: at.Port, Index: at.PortIndex, Hardware: at.Hardware})
		}
	}
	return list
}

// agree commits the desired state of the table of family bridge; nil means no table.
func (d *Datapath) agree(desired *nft.Table) error {
	t := &d.bridge
	err := d.readBridge()
	if err == nil {
		err = d.commitBridge(t.actual, desired)
	}
	if t.known = err == nil; t.known {
		t.actual = desired
		d.shown.bridge.Store(desired)
	}
	return d.trust(err)
}

func (d *Datapath) commitBridge(actual, desired *nft.Table) error {
	conn := d.conn.Of(ruleset.BridgeTable())
	if desired == nil {
		if actual == nil {
			return nil
		}
		return d.committed(conn.Delete())
	}
	ops := nft.Diff(actual, desired)
	if len(ops) == 0 {
		return nil
	}
	return d.committed(conn.Commit(ops))
}

// disown removes addresses from that table: they are bound to no port until an agent knows their port.
func (d *Datapath) disown(addrs []netip.Addr) error {
	if err := d.readBridge(); err != nil || d.bridge.actual == nil {
		return err
	}
	return d.commitBridge(d.bridge.actual, ruleset.WithoutOwners(d.bridge.actual, addrs))
}
