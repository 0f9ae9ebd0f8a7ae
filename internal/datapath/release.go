// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// ReleaseNode removes the node's own addresses from the table that an earlier process left, if that table
// lists them as addresses of a pod. Its rules filter packets from such an address, so the agent could not
// reach the API server to learn better. It runs before the first sync and is the second exception to
// invariant 2: it opens only the node itself, to which no policy applies.
func (d *Datapath) ReleaseNode() error {
	own, err := links.LocalAddresses()
	if err != nil {
		return err
	}
	elements, err := ruleset.Release(d.conn, own)
	if err != nil {
		return errors.Join(d.trust(err), d.renew())
	}
	if elements > 0 {
		d.log.Warn("removed addresses of this node that the table of an earlier process listed as a pod's",
			"count", elements)
	}
	return nil
}
