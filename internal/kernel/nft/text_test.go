// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"strings"
	"testing"
)

func TestCommentsAreWhatNftCanRead(t *testing.T) {
	for comment, want := range map[string]string{
		"pods app=web":           "pods app=web",
		"say \"a\"\nand b":       "say 'a' and b",
		`back\slash`:             "back?slash",
		"tab\tand bell\a":        "tab?and bell?",
		"größe":                  "gr??e",
		strings.Repeat("ö", 200): strings.Repeat("?", 125) + "...",
	} {
		if got := Clip(comment); got != want {
			t.Errorf("Clip(%q) = %q, want %q", comment, got, want)
		}
	}
}
