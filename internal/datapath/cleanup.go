// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"

	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Cleanup removes what is ours: the tables, the settings that were changed, and the
// mark of a node that is open. Nobody else's object is touched. Done twice it
// changes nothing.
func (d *Datapath) Cleanup() error {
	return errors.Join(d.removeTables(), ruleset.UnmarkOpen(d.conn))
}

// removeTables removes our tables and restores the settings that they remember.
func (d *Datapath) removeTables() error {
	restored, err := d.restoreSettings()
	if err != nil {
		return err
	}
	return errors.Join(restored, d.deleteTables())
}

// restoreSettings writes the settings as they were before us, as far as our table
// remembers them. What cannot be written is told apart from what cannot be known.
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
