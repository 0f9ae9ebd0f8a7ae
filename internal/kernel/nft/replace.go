// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
)

// Copy names the table that judges packets beside t while t is replaced as a whole.
func (t TableID) Copy() TableID { return TableID{Family: t.Family, Name: t.Name + "-copy"} }

// replace replaces the whole table by the one that the operations write after their DeleteTable.
//
// For a packet under way while this takes effect the new chains are empty, since it keeps the generation of
// rules in which it began, and maps of the old table have lost their elements: it would pass. So a copy of
// the new table is there first and is deleted last. A process that dies meanwhile leaves the copy behind;
// the next Diff drops it.
func (c *Conn) replace(ctx context.Context, ops []Op) error {
	judge := c.Of(c.id.Copy())
	fresh := append([]Op{{Kind: AddTable}, {Kind: DeleteTable}}, ops[1:]...) // a copy may be left of before
	if err := judge.send(ctx, fresh, true); err != nil {
		return err
	}
	err := c.send(ctx, ops, true)
	c.drop(c.id.Copy())
	return errors.Join(err, c.flush())
}

// drop deletes a table, whether or not it exists.
func (c *Conn) drop(id TableID) {
	c.nl.AddTable(id.kernel()) // so that the delete finds it, with any kernel
	c.nl.DelTable(id.kernel())
}
