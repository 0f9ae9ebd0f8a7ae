// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/ipvs/host"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// Clients that keep their port go on when the tables take the place of IPVS, inside and outside, and on the way back.
func TestClientsWithOnePortLeaveIPVS(t *testing.T) {
	for _, f := range inet.Families {
		t.Run(map[inet.Family]string{inet.IPv4: "ipv4", inet.IPv6: "ipv6"}[f], func(t *testing.T) {
			w := newBalanced(t, f)
			p := w.example.program()
			w.apply(t, p)
			asked := map[string]func() string{}
			for _, from := range []string{localPod, stranger, ourNode} {
				conn, err := w.endpoint(from).NS.Dial(t.Context(), "udp", netip.AddrPortFrom(w.web, port).String())
				check(t, err)
				t.Cleanup(func() { check(t, conn.Close()) })
				asked[from] = func() string { return w.kept(from, answer(t, conn)) }
				asked[from]()
			}
			if ended := w.leaveIPVS(t, p); ended < len(asked) {
				t.Errorf("%d connections ended, want those of %d clients", ended, len(asked))
			}
			for from, ask := range asked {
				t.Logf("by the tables %s meets: %s", from, ask())
			}
			w.ipvs = w.startIPVS(t)
			if ended := w.ipvs.apply(t, w, p); ended > 0 {
				t.Errorf("back to IPVS: %d connections ended", ended)
			}
			for from, ask := range asked {
				t.Logf("by IPVS again %s meets: %s", from, ask())
			}
		})
	}
}

// leaveIPVS serves a program by the tables alone from now on, as an agent does after a change of its flag. It returns
// how many connections ended.
func (w *world) leaveIPVS(t *testing.T, p *program.Program) (ended int) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	check(t, w.endpoint(ourNode).NS.Do(func() error {
		alone, err := tables.Open(ruleset.Settings{}, new(nft.Tally), log)
		if err != nil {
			return err
		}
		apply := func() error {
			r, err := alone.Apply(t.Context(), tables.Desired{Model: w.model(p), Own: w.isOwn})
			ended += r.Ended
			return errors.Join(err, r.Unsettled)
		}
		if err := apply(); err != nil {
			return errors.Join(err, alone.Close())
		}
		if removed, err := host.Remove(log); err != nil || !removed {
			t.Errorf("something of IPVS was removed: %t, %v", removed, err)
		}
		alone.Resettle()
		return errors.Join(apply(), alone.Close())
	}))
	return ended
}
