// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/source/manifest"
)

// maxStdin bounds what is read of the standard input.
const maxStdin = 256 << 20

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
	if !slices.Contains(m.from.Paths, manifest.Stdin) || m.from.Text != nil {
		return m.from, nil
	}
	text, err := io.ReadAll(io.LimitReader(m.in, maxStdin+1))
	if err == nil && len(text) > maxStdin {
		err = fmt.Errorf("it is larger than %d MiB", maxStdin>>20)
	}
	if err != nil {
		return m.from, fmt.Errorf("reading the standard input: %w", err)
	}
	m.from.Text = text
	return m.from, nil
}
