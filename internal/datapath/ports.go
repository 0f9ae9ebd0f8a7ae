// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// portTable is what is known of one of the tables that bind addresses to bridge
// ports.
type portTable struct {
	actual *nft.Table
	known  bool
}

// bindPorts makes the tables of the families ip and ip6 agree with the wiring.
// What cannot be bound is a problem and no reason to stop: the policies of the
// big table still hold.
func (d *Datapath) bindPorts(n nft.Node, report *Report) {
	for _, f := range program.Families {
		t := d.ports[f]
		desired := nft.RenderPorts(f, n)
		if t.known && t.actual == nil && desired == nil {
			continue
		}
		err := d.trust(d.bindFamily(f, &t, desired))
		if t.known = err == nil; t.known {
			t.actual = desired
		} else {
			report.Problems = append(report.Problems, Problem{Subject: fmt.Sprintf("bridge ports, ipv%d", f),
				Text: "a pod can forge the address of another pod of its bridge: " + err.Error(),
				Cure: "use a kernel with CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_MATCH_PHYSDEV"})
		}
		d.ports[f] = t
	}
}

func (d *Datapath) bindFamily(f program.Family, t *portTable, desired *nft.Table) error {
	conn := d.conn.Ports(f)
	if !t.known {
		var err error
		if t.actual, err = conn.Read(); err != nil {
			return err
		}
	}
	if desired == nil {
		if t.actual == nil {
			return nil
		}
		return d.committed(conn.Delete())
	}
	ops := nft.Diff(t.actual, desired)
	if len(ops) == 0 {
		return nil
	}
	return d.committed(conn.Commit(ops))
}

func (d *Datapath) deletePorts() error {
	var failed []error
	for _, f := range program.Families {
		conn := d.conn.Ports(f)
		if actual, err := conn.Read(); err != nil || actual != nil {
			failed = append(failed, err, conn.Delete())
		}
	}
	return errors.Join(failed...)
}
