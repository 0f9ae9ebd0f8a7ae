// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"
)

// Cleanup removes what is ours: the tables, the settings that were changed, and the
// mark of a node that is open. Nobody else's object is touched. Done twice it
// changes nothing.
func (d *Datapath) Cleanup() error {
	return errors.Join(d.removeTables(), d.conn.UnmarkOpen())
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
	d.remember(actual)
	var errs []error
	for name, e := range d.restore {
		if err := d.putBack(name, e); err != nil {
			errs = append(errs, fmt.Errorf("restoring %s: %w", name, err))
		}
	}
	return errors.Join(errs...), nil
}

func (d *Datapath) deleteTables() error {
	var failed []error
	if exists, err := d.conn.Exists(); err != nil || exists {
		failed = append(failed, err, d.conn.Delete())
	}
	if _, exists, err := d.conn.DropsStackedTags(); err != nil || exists {
		failed = append(failed, err, d.conn.DropStackedTags(false))
	}
	return errors.Join(append(failed, d.deletePorts(), removeSelfTest())...)
}
