// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"

	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Cleanup removes all that podwall added: the tables, the changed settings, and the mark of an open node.
// It touches no other program's objects. Repeating it changes nothing.
func (d *Datapath) Cleanup() error {
	return errors.Join(d.removeTables(), ruleset.UnmarkOpen(d.conn))
}

// removeTables removes our tables and restores the settings recorded in them.
func (d *Datapath) removeTables() error {
	restored, err := d.restoreSettings()
	if err != nil {
		return err
	}
	return errors.Join(restored, d.deleteTables())
}

// restoreSettings restores the settings recorded in our table to their values before podwall. failed holds
// settings that could not be written; err means that the record could not be read.
func (d *Datapath) restoreSettings() (failed, err error) {
	actual, err := d.conn.Read()
	if err != nil {
		return nil, err
	}
	d.recall(actual)
	return d.settings.putBack(), nil
}

func (d *Datapath) deleteTables() error {
	var failed []error
	for _, t := range ruleset.Tables() {
		conn := d.conn.Of(t)
		if exists, err := conn.Exists(); err != nil || exists {
			gone := conn.Delete()
			if failed = append(failed, err, gone); gone == nil {
				d.log.Info("table removed", "table", t.String())
			}
		}
	}
	return errors.Join(append(failed, removeSelfTest())...)
}
