// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestDurationsHaveAUnit(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		New(format, 0, &b, false).Info("pass", "elapsed", 17*time.Millisecond, "count", 3)
		if !strings.Contains(b.String(), "17ms") || !strings.Contains(b.String(), "3") {
			t.Errorf("format %s: %q", format, &b)
		}
	}
}

func TestTheLoggerFollowsFormatAndVerbosity(t *testing.T) {
	tests := []struct {
		format    string
		verbosity int
		terminal  bool
		want      string // beginning of the line
		debug     bool
	}{
		{"auto", 0, true, "time=", false},
		{"auto", 0, false, `{"time":`, false},
		{"text", 1, false, "time=", true},
		{"json", 2, true, `{"time":`, true},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		log := New(tt.format, tt.verbosity, &b, tt.terminal)
		log.Info("started")
		if !strings.HasPrefix(b.String(), tt.want) {
			t.Errorf("format %s, terminal %t: %q, want it to begin with %q", tt.format, tt.terminal, &b, tt.want)
		}
		if got := log.Enabled(t.Context(), slog.LevelDebug); got != tt.debug {
			t.Errorf("verbosity %d: debug enabled = %t, want %t", tt.verbosity, got, tt.debug)
		}
	}
}

func TestControlCharactersAreReplaced(t *testing.T) {
	for in, want := range map[string]string{"shop/web": "shop/web", "a\x1b[31m\nb": "a\uFFFD[31m\uFFFDb", "é ✓": "é ✓", "a\u202eb\u009b": "a\uFFFDb\uFFFD"} {
		if got := Plain(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
