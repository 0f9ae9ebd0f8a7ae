// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"os"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/gate"
)

// Where containerd starts no pod, status fails.
func TestStatusFailsWhereNoPodStarts(t *testing.T) {
	const entry = `{"type": "podwall-gate"}`
	tests := []struct{ name, file, content, want string }{
		{"a broken file first", "00-broken.conf", "{", "00-broken.conf comes before 10-bridge.conflist"},
		{"the entry twice", "05-x.conflist",
			`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}, ` + entry + `, ` + entry + `]}`,
			"no pod starts with 05-x.conflist"},
		{"the entry first", "05-x.conflist",
			`{"cniVersion": "1.0.0", "name": "x", "plugins": [` + entry + `, {"type": "bridge"}]}`,
			"no pod starts with 05-x.conflist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			y := newYard(t, "bridge.conflist")
			y.check(y.Install())
			y.check(os.WriteFile(y.path("99-broken.conf"), []byte("{"), 0o644)) // no runtime comes to it
			y.check(y.statusOfDirectory())
			y.check(os.WriteFile(y.path(tt.file), []byte(tt.content), 0o644))
			if err := y.statusOfDirectory(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTheSocketIsThatOfTheInstalledEntry(t *testing.T) {
	for _, file := range []string{"bridge.conflist", "ptp.conf"} {
		y := newYard(t, file)
		if got := y.Socket(); got != gate.DefaultSocket {
			t.Errorf("%s: nothing is installed, and the socket is %s", file, got)
		}
		y.Entry.Socket = "/run/x.sock"
		y.check(y.Install())
		y.Entry = Entry{Type: Name}
		if got := y.Socket(); got != "/run/x.sock" {
			t.Errorf("%s: socket %s, want the installed one", file, got)
		}
		if y.Entry.Socket = "/run/y.sock"; y.Socket() != "/run/y.sock" {
			t.Errorf("%s: socket %s, want the given one", file, y.Socket())
		}
	}
}
