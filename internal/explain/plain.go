// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// line is Sprintf for a text of one line. Names, labels and values come from the authors
// of objects: none of their characters may end the line, move the cursor or turn the
// direction of the text.
func line(format string, args ...any) string { return plain(fmt.Sprintf(format, args...)) }

// plain replaces characters that do not print: control characters, C1 too, and those that
// change the direction of the text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}
