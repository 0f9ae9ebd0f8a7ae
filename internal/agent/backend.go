// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/podwall/podwall/internal/agent/services"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/observe"
	balancer "github.com/podwall/podwall/internal/proxy/ipvs/host"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// backend is the write side of the service proxy: the tables, and IPVS behind them if that chooses endpoints.
type backend struct {
	*tables.Tables
	ipvs *balancer.Proxy // nil: the tables choose
}

// openBackend connects to the kernel.
func openBackend(cfg config.Config, tally *nft.Tally, log *slog.Logger) (*backend, error) {
	b := &backend{}
	with := cfg.Services.Backend == config.BackendIPVS
	var err error
	if b.Tables, err = tables.Open(ruleset.Settings{IPVS: with}, tally, log); err != nil {
		return nil, err
	}
	if !with {
		return b, nil
	}
	s := cfg.Services
	seconds := func(d time.Duration) uint32 { return uint32(d / time.Second) }
	settings := balancer.Settings{Sysctls: sysctl.Dir(cfg.SysctlRoot), Timeouts: ipvs.Timeouts{
		TCP: seconds(s.TCPTimeout), TCPFin: seconds(s.TCPFinTimeout), UDP: seconds(s.UDPTimeout)}}
	if b.ipvs, err = balancer.Open(b.Tables, settings, log); err != nil {
		return nil, errors.Join(err, b.Tables.Close())
	}
	return b, nil
}

// cureOf says what helps where the kernel cannot be used.
func cureOf(err error) string {
	if errors.Is(err, ipvs.ErrNone) {
		return "modprobe ip_vs on the node, and have it loaded at boot (/etc/modules-load.d), or run the agent with " +
			"--service-proxy-backend=nftables"
	}
	return "use a kernel with nf_tables, nf_nat and nf_conntrack_netlink, and let the agent use NET_ADMIN"
}

// close ends the connections to the kernel.
func (b *backend) close() error {
	if b.ipvs == nil {
		return b.Tables.Close()
	}
	return errors.Join(b.ipvs.Close(), b.Tables.Close())
}

// kernel returns what the loop writes to.
func (b *backend) kernel(log *slog.Logger) services.Kernel {
	if b.ipvs != nil {
		return b.ipvs
	}
	return &alone{Kernel: b.Tables, remove: balancer.Remove, resettle: b.Resettle, log: log}
}

// await looks for the end of connections that IPVS lets end, until ctx ends.
func (b *backend) await(ctx context.Context) error {
	if b.ipvs == nil {
		return nil
	}
	return b.ipvs.Watch(ctx)
}

// limits returns what IPVS does not do as Services ask for.
func (b *backend) limits() (list []observe.Problem) {
	if b.ipvs == nil {
		return nil
	}
	for _, p := range b.ipvs.Problems() {
		list = append(list, observe.Problem{Subject: p.Subject, Text: p.Text, Cure: p.Cure})
	}
	return list
}

// alone is tables that choose endpoints themselves. What an agent with IPVS left is removed when they stand:
// until then it serves.
type alone struct {
	services.Kernel
	remove   func(*slog.Logger) (removed bool, err error)
	resettle func() // has the next Apply look at all connections
	log      *slog.Logger
	clean    bool
}

// Apply makes the kernel agree. A removal that fails is tried again with the next one. Connections that began through
// IPVS meanwhile are looked at when it no longer serves.
func (a *alone) Apply(ctx context.Context, want tables.Desired) (tables.Report, error) {
	report, err := a.Kernel.Apply(ctx, want)
	if err != nil || a.clean {
		return report, err
	}
	removed, err := a.remove(a.log)
	a.clean = err == nil
	if err != nil {
		a.log.Error("what an agent with IPVS left cannot be removed", "err", err)
	}
	if !removed {
		return report, nil
	}
	a.resettle()
	last, err := a.Kernel.Apply(ctx, want)
	return report.And(last), err
}
