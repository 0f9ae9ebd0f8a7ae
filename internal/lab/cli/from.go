// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/source/manifest"
)

// manifestFlags are the flags that say which manifests to read.
type manifestFlags struct {
	in   io.Reader
	from manifest.From
}

func (m *manifestFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&m.from.Paths, "manifests", "f", nil,
		"`DIR` or file with manifests, or - for the standard input; may be given again")
	f.BoolVarP(&m.from.Recursive, "recursive", "R", false, "read the directories below too")
}

// read returns what to load. The standard input is read once.
func (m *manifestFlags) read() (manifest.From, error) {
	if len(m.from.Paths) == 0 {
		return m.from, errors.New("no manifests given; name a directory or a file with -f, or - for the standard input")
	}
	err := m.from.ReadText(m.in)
	return m.from, err
}
