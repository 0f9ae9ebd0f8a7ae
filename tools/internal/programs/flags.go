// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"flag"
	"fmt"
	"strconv"
	"time"
)

// Source says what is built or given away: the repository, and the names of the
// version in it.
type Source struct {
	Root, Version, Revision, Tag *string
	Created                      *time.Time
}

// Flags adds the flags that say so, the same for every command.
func (s Source) Flags(f *flag.FlagSet) {
	f.StringVar(s.Root, "root", ".", "top of the repository")
	f.StringVar(s.Version, "version", "development", "what the programs print with --version")
	f.StringVar(s.Revision, "revision", "", "commit")
	f.StringVar(s.Tag, "tag", "development", "tag of the image")
	*s.Created = time.Unix(0, 0).UTC()
	f.Func("epoch", "time of the commit, in seconds since 1970", func(text string) error {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("seconds since 1970: %w", err)
		}
		*s.Created = time.Unix(n, 0).UTC()
		return nil
	})
}
