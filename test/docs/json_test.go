// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/podwall/podwall/internal/gate/cni"
)

// wrongJSON checks an entry of a network configuration, the only JSON in the pages.
func wrongJSON(text string) []error {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	var e cni.Entry
	if err := d.Decode(&e); err != nil {
		return []error{fmt.Errorf("not an entry of a network configuration: %w", err)}
	}
	if err := e.Check(); err != nil || e.Type != cni.Name {
		return []error{fmt.Errorf("type %q, %w", e.Type, err)}
	}
	return nil
}
