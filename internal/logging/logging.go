// SPDX-License-Identifier: Apache-2.0

// Package logging makes the logger of podwall's programs. It owns the form of a line: levels, units,
// and that names from outside cannot write control characters to a terminal.
package logging

import (
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// LevelObjects is the level of lines that name each object that changed.
const LevelObjects = slog.LevelDebug - 4

// New returns a logger that writes to w. format is "text", "json" or
// "auto", which is text on a terminal and JSON elsewhere. Verbosity 0 shows
// what an operator wants to see, 1 every pass, 2 and more each object that changed.
func New(format string, verbosity int, w io.Writer, isTerminal bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	switch {
	case verbosity >= 2:
		options.Level = LevelObjects
	case verbosity == 1:
		options.Level = slog.LevelDebug
	}
	options.ReplaceAttr = plainLevel
	if format == "text" || format != "json" && isTerminal {
		return slog.New(slog.NewTextHandler(w, options))
	}
	options.ReplaceAttr = withUnit
	return slog.New(slog.NewJSONHandler(w, options))
}

// plainLevel writes what is below DEBUG as DEBUG: log collectors know no DEBUG-4.
func plainLevel(groups []string, a slog.Attr) slog.Attr {
	if level, ok := a.Value.Any().(slog.Level); ok && len(groups) == 0 && a.Key == slog.LevelKey &&
		level < slog.LevelDebug {
		return slog.Any(slog.LevelKey, slog.LevelDebug)
	}
	return a
}

// withUnit writes durations as text does, 17ms; bare JSON has nanoseconds without a
// unit.
func withUnit(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return plainLevel(groups, a)
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
