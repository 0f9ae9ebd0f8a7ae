// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"strings"
	"testing"
)

func TestAFilledTextHasEvenLines(t *testing.T) {
	long := strings.Repeat("words ", 14) // 84 characters
	tests := []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"short lines are joined", "one\ntwo\nthree", "one two three"},
		{"long ones are broken", long + "and", strings.TrimSpace(strings.Repeat("words ", 13)) + "\nwords and"},
		{"paragraphs", "one\ntwo\n\nthree\nfour", "one two\n\nthree four"},
		{"an indented line", "head:\n  one\n  two", "head:\n  one\n  two"},
		{"an indented paragraph", "head\n\n  one\n  two\n\ntail\nend", "head\n\n  one\n  two\n\ntail end"},
		{"columns", "a  one\nb  two", "a  one\nb  two"},
	}
	for _, tt := range tests {
		if got := Fill(tt.text); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}
