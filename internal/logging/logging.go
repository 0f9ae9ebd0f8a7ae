// SPDX-License-Identifier: Apache-2.0

// Package logging makes the logger of podwall's programs.
package logging

import (
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// New returns a logger that writes to w. format is "text", "json" or
// "auto", which is text on a terminal and JSON elsewhere. Verbosity 0 shows
// what an operator wants to see, 1 and more every pass.
func New(format string, verbosity int, w io.Writer, isTerminal bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbosity >= 1 {
		options.Level = slog.LevelDebug
	}
	if format == "text" || format != "json" && isTerminal {
		return slog.New(slog.NewTextHandler(w, options))
	}
	options.ReplaceAttr = withUnit
	return slog.New(slog.NewJSONHandler(w, options))
}

// withUnit writes durations as text does, 17ms; bare JSON has nanoseconds without a
// unit.
func withUnit(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}

// Plain replaces what is not printed as it stands. Names come from files and from the
// API, and a terminal obeys control characters.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}
