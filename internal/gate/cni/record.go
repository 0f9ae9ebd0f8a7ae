// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Endings of our own files, which no runtime reads.
const (
	original  = ".podwall-original"
	recordEnd = ".podwall-record"
	// recordName is the only record of older releases.
	recordName = ".podwall-gate.record"
)

// record says what was changed, so that it can be undone. There is one for each file
// of the pod network that we changed.
type record struct {
	Version int `json:"version"`
	// Original is the file that was there, kept as Original + ".podwall-original".
	Original string `json:"original"`
	// Mode is its mode.
	Mode fs.FileMode `json:"mode"`
	// Installed is the file that was written: the same, but for older releases. Digest is
	// that of its content. Previous is the digest of what we had written before: after a
	// crash it may still be there.
	Installed string `json:"installed"`
	Digest    string `json:"sha256"`
	Previous  string `json:"previousSha256,omitempty"`
}

// wrote reports whether we wrote this content.
func (r record) wrote(data []byte) bool {
	sum := digest(data)
	return r.Digest == sum || r.Previous == sum
}

func (r record) valid() bool {
	plain := func(name string) bool { return name != "" && filepath.Base(name) == name && isConf(name) }
	return r.Version == 1 && plain(r.Original) && plain(r.Installed)
}

// readRecords returns the records by the file that was written. A damaged one is none.
func (i Installer) readRecords(entries []os.DirEntry) (map[string]record, error) {
	records := map[string]record{}
	for _, e := range entries {
		if e.Name() != recordName && !strings.HasSuffix(e.Name(), recordEnd) {
			continue
		}
		data, err := readOwn(i.path(e.Name()))
		if errors.Is(err, fs.ErrPermission) {
			return nil, explained(i.path(e.Name()), fmt.Errorf("reading what was installed: %w", err))
		}
		var r record
		if err != nil || json.Unmarshal(data, &r) != nil || !r.valid() {
			continue
		}
		if e.Name() == recordName || e.Name() == r.Installed+recordEnd {
			records[r.Installed] = r
		}
	}
	return records, nil
}

func (i Installer) keep(r record) error {
	r.Version = 1
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	_, err = i.write(i.path(r.Installed+recordEnd), append(data, '\n'), 0o600)
	return err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
