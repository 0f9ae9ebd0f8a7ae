// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// leftByIPVS makes in the network namespace of the thread tables of Services, and an address as IPVS needs it.
func leftByIPVS(t *testing.T) error {
	of, err := tables.Open(ruleset.Settings{IPVS: true}, new(nft.Tally), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	model := &service.Model{IPv4: &program.Program{Family: inet.IPv4}, IPv6: &program.Program{Family: inet.IPv6}}
	_, err = of.Apply(t.Context(), tables.Desired{Model: model, Own: func(netip.Addr) bool { return false }})
	if err := errors.Join(err, of.Close()); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 96, 0, 1), Mask: net.CIDRMask(32, 32)},
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: 119, Priority: 119,
		LinkIndex: lo.Attrs().Index})
}

// While there are virtual services, the tables keep out who may not use them, in each way to remove both.
func TestIPVSIsRemovedBeforeTheTables(t *testing.T) {
	ns := nftrun.Namespace(t)
	for name, remove := range map[string]func(*slog.Logger) error{
		"an agent without the proxy": func(log *slog.Logger) error {
			_, o, _ := states()
			(&proxy{observer: o, log: log}).remove(t.Context(), func() bool { return true })
			return nil
		},
		"--cleanup": func(log *slog.Logger) error {
			return cleanupOnce(t.Context(), config.Config{GateSocket: filepath.Join(t.TempDir(), "gate.sock")}, log)
		},
	} {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		if err := ns.Do(func() error { return errors.Join(leftByIPVS(t), remove(log)) }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text := out.String()
		ipvs, table := strings.Index(text, "addresses of Services removed"), strings.Index(text, "-services")
		if ipvs < 0 || table < ipvs {
			t.Errorf("%s: not removed, or in another order:\n%s", name, text)
		}
	}
}

// What cannot be removed keeps what would have gone after it.
func TestAFailedStepIsTheLast(t *testing.T) {
	no, taken := errors.New("no"), 0
	step := func(err error) func(*slog.Logger) error {
		return func(*slog.Logger) error {
			taken++
			return err
		}
	}
	if err := inTurn(nil, step(nil), step(no), step(nil)); !errors.Is(err, no) || taken != 2 {
		t.Errorf("%d steps taken: %v", taken, err)
	}
}
