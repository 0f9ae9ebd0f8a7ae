// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
)

func addresses(list ...string) (ips []netip.Addr) {
	for _, s := range list {
		ips = append(ips, netip.MustParseAddr(s))
	}
	return ips
}

// claims says which of the addresses pods may have.
func claims(s *cluster.Store, ips ...string) (left []string) {
	p := &cluster.Pod{Key: cluster.Key{Namespace: "x", Name: "liar"}, IPs: addresses(ips...)}
	s.Update(func(tx *cluster.Tx) { tx.SetPod(p) })
	for _, ip := range s.Snapshot().Pods[0].IPs {
		left = append(left, ip.String())
	}
	return left
}

func TestWhatIsReserved(t *testing.T) {
	store := cluster.NewStore()
	own := addresses("192.168.0.1")
	hosts := map[string][]netip.Addr{"api.example": addresses("203.0.113.5", "::ffff:203.0.113.6")}
	r := &reserver{store: store, log: slog.New(slog.DiscardHandler),
		local: func() ([]netip.Addr, error) { return own, nil },
		hosts: func() []string { return []string{"api.example", "10.96.0.1"} },
		lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			if len(hosts[host]) == 0 {
				return nil, errors.New("no such host")
			}
			return hosts[host], nil
		}}
	all := []string{"192.168.0.1", "192.168.0.2", "10.96.0.1", "203.0.113.5", "203.0.113.6", datapath.SelfTestAddresses()[0].String(), "10.0.0.1"}
	want := func(left ...string) {
		t.Helper()
		if got := claims(store, all...); !slices.Equal(got, left) {
			t.Errorf("pods may have %v, want %v", got, left)
		}
	}
	want(all...)
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	want("192.168.0.2", "203.0.113.5", "203.0.113.6", "10.0.0.1")
	resolve := func() {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		r.lookup = stopping(r.lookup, stop)
		if err := r.resolve(ctx); err != nil {
			t.Error(err)
		}
	}
	resolve()
	want("192.168.0.2", "10.0.0.1")
	own = addresses("192.168.0.2")
	if err := r.own(); err != nil {
		t.Fatal(err)
	}
	want("192.168.0.1", "10.0.0.1")
	delete(hosts, "api.example")
	resolve()
	want("192.168.0.1", "10.0.0.1") // what the name meant stays
}

// stopping ends the watch after the first answer.
func stopping(lookup func(context.Context, string) ([]netip.Addr, error), stop func()) func(context.Context, string) ([]netip.Addr, error) {
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		list, err := lookup(ctx, host)
		stop()
		return list, err
	}
}

func TestWhereTheAPIServerIs(t *testing.T) {
	env := func(string) string { return "10.96.0.1" }
	for master, want := range map[string][]string{
		"https://[fd00::7]:6443": {"fd00::7", "10.96.0.1"}, "https://api.example:6443/k8s": {"api.example", "10.96.0.1"}, "http://192.0.2.9:8080": {"192.0.2.9", "10.96.0.1"},
	} {
		if got := apiHosts(config.Config{Master: master}, env); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", master, got, want)
		}
	}
	if got := apiHosts(config.Config{Manifests: "somewhere"}, env); got != nil {
		t.Errorf("with manifests: %v", got)
	}
}
