// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"errors"
	"log/slog"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// Exist reports whether a table of Services is in the kernel, in the network namespace of the calling thread.
func Exist() (bool, error) {
	conn, err := nft.Open(0, ruleset.Table(inet.IPv4))
	if err != nil {
		return false, err
	}
	for _, id := range ruleset.Tables() {
		found, err := conn.Of(id).Exists()
		if found || err != nil {
			return found, errors.Join(err, conn.Close())
		}
	}
	return false, conn.Close()
}

// Remove removes the tables of Services, in the network namespace of the calling thread. Connections that
// exist go on. Repeating it changes nothing.
func Remove(log *slog.Logger) error {
	conn, err := nft.Open(0, ruleset.Table(inet.IPv4))
	if err != nil {
		return err
	}
	var failed []error
	for _, id := range ruleset.Tables() {
		of := conn.Of(id)
		if found, err := of.Exists(); err != nil || !found {
			failed = append(failed, err)
			continue
		}
		gone := of.Delete()
		if failed = append(failed, gone); gone == nil {
			log.Info("table removed", "table", id.String())
		}
	}
	return errors.Join(append(failed, conn.Close())...)
}
