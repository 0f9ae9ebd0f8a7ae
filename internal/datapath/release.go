// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// ReleaseNode takes the node's own addresses out of the table that an earlier
// process left, if they are there as a pod's. The rules of an earlier version judge
// what such an address sends, so the agent could not reach the API that would tell
// it better. It comes before the first sync and is the second exception to
// invariant 2: it opens nothing but the node itself, which no policy judges.
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
		d.log.Warn("the table of an earlier process had addresses of this node as a pod's, taken out", "count", elements)
	}
	return nil
}
