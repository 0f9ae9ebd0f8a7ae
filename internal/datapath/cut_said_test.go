// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

// saying admits both peers, and returns what is logged about cuts at the usual level.
func saying(t *testing.T) (*Datapath, *bytes.Buffer) {
	t.Helper()
	said := &bytes.Buffer{}
	d := open(t, Options{})
	d.cuts.log = slog.New(slog.NewTextHandler(said, nil))
	watch(t, d)
	apply(t, d, isolated(first, second))
	return d, said
}

// Pods are deleted all the time, and each leaves connections that have ended. They are deleted but not
// counted as cuts. An open connection is counted as one, for another reason than a policy change. Neither
// is logged.
func TestAPodThatGoesIsNoNews(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d, said := saying(t)
		connect(t, inet.TCP, first, webPod)
		connectIn(t, timeWait, inet.TCP, second, webPod)
		connect(t, inet.UDP, second, elsewhere)
		p := isolated(first, second)
		p.Pods = nil
		sum := drive(t, d, p, line(inet.UDP, second, elsewhere))
		if want := (Cuts{Gone: 1}); sum != want {
			t.Errorf("cut were %+v, want %+v", sum, want)
		}
		if said.Len() > 0 {
			t.Errorf("said was %s", said.String())
		}
	})
}

func TestWhatPoliciesDenyIsSaidInOneLine(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d, said := saying(t)
		fill(t)
		drive(t, d, isolated(first), lines(first, webPod, second, elsewhere)...)
		if text := said.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "ingress=2 egress=0 first=") {
			t.Errorf("said was %s", text)
		}
	})
}
