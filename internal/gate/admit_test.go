// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/gate"
)

// Without an agent a pod starts closed, or not at all; one that could not be closed
// never starts.
func TestAPodWithoutAnAgentNeverStartsOpen(t *testing.T) {
	broken := errors.New("no right")
	for _, tt := range []struct {
		name   string
		closed error
		refuse bool
		want   gate.Verdict
	}{
		{"closed", nil, false, gate.StartClosed},
		{"closed, and the operator wants it to wait", nil, true, gate.TooLate},
		{"not closed", broken, false, gate.WouldStartOpen},
		{"not closed, and the operator wants it to wait", broken, true, gate.WouldStartOpen},
	} {
		a := gate.Admission{Client: gate.Client{Socket: filepath.Join(t.TempDir(), "none")}, Refuse: tt.refuse,
			Wait: 20 * time.Millisecond, CloseWait: time.Second,
			Close: func(context.Context, []string, []netip.Addr) error { return tt.closed }}
		d := a.Admit(gate.Pod{Namespace: "shop", Name: "web"})
		if d.Verdict != tt.want || !errors.Is(d.Err, gate.ErrNoAnswer) || d.Why() == "" {
			t.Errorf("%s: verdict %d, want %d (%v)", tt.name, d.Verdict, tt.want, d.Err)
		}
	}
	var zero gate.Decision
	if zero.Verdict != gate.WouldStartOpen {
		t.Error("the zero decision lets a pod start")
	}
}
