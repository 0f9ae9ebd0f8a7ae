// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/source/kube"
)

// reserver tells the store which addresses no pod can have: those of this node,
// the API server's, and the self-test's. Those of the other nodes the store knows.
type reserver struct {
	store *cluster.Store
	log   *slog.Logger
	local func() ([]netip.Addr, error)
	// hosts are the names or addresses of the API server; none without one.
	hosts  func() []string
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// How often the API server's name is resolved, and when that failed.
const (
	resolveEach  = 10 * time.Minute
	resolveAgain = 30 * time.Second
	resolveLimit = 10 * time.Second
)

func newReserver(cfg config.Config, store *cluster.Store, getenv func(string) string, log *slog.Logger) *reserver {
	return &reserver{store: store, log: log, local: links.LocalAddresses,
		hosts: func() []string { return apiHosts(cfg, getenv) },
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}}
}

// apiHosts returns where the API server is, by the settings.
func apiHosts(cfg config.Config, getenv func(string) string) (hosts []string) {
	if cfg.Manifests != "" {
		return nil
	}
	if rest, err := kube.LoadConfig(cfg.Kubeconfig, cfg.Master); err == nil {
		if u, err := url.Parse(rest.Host); err == nil && u.Hostname() != "" {
			hosts = append(hosts, u.Hostname())
		} else if host, _, err := net.SplitHostPort(rest.Host); err == nil {
			hosts = append(hosts, host) // an address with a port and no scheme
		}
	}
	if host := getenv("KUBERNETES_SERVICE_HOST"); host != "" {
		hosts = append(hosts, host)
	}
	return hosts
}

// start reserves what is known at once. It comes before the source delivers pods.
func (r *reserver) start() error {
	r.reserve("self-test", datapath.SelfTestAddresses(), "kept for podwall's self-test")
	known := map[netip.Addr]string{}
	for _, host := range r.hosts() {
		if a, err := netip.ParseAddr(host); err == nil {
			known[a.Unmap()] = apiServer
		}
	}
	r.store.Update(func(tx *cluster.Tx) { tx.SetReserved(apiServer, known) })
	return r.own()
}

const apiServer = "an address of the API server"

func (r *reserver) own() error {
	list, err := r.local()
	if err != nil {
		return err
	}
	r.reserve("node", list, "an address of this node")
	return nil
}

func (r *reserver) reserve(origin string, list []netip.Addr, why string) {
	reserved := make(map[netip.Addr]string, len(list))
	for _, a := range list {
		reserved[a] = why
	}
	r.store.Update(func(tx *cluster.Tx) { tx.SetReserved(origin, reserved) })
}

// watch follows this node's addresses until ctx ends.
func (r *reserver) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		err := links.WatchAddresses(ctx, func() {
			if err := r.own(); err != nil {
				r.log.Warn("listing the addresses of this node failed, trying again when they change", "err", err)
			}
		})
		if err != nil && ctx.Err() == nil {
			r.log.Error("watching the addresses of this node failed, trying again", "err", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

// resolve follows the API server's addresses until ctx ends. What a name meant
// stays reserved while it cannot be resolved.
func (r *reserver) resolve(ctx context.Context) error {
	for ctx.Err() == nil {
		found, err := r.resolved(ctx)
		next := resolveEach
		if err != nil {
			r.log.Warn("resolving the API server's name failed, trying again", "err", err)
			next = resolveAgain
		} else {
			r.reserve(apiServer, found, apiServer)
		}
		pause(ctx, next)
	}
	return nil
}

func (r *reserver) resolved(ctx context.Context) (found []netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	for _, host := range r.hosts() {
		if a, err := netip.ParseAddr(host); err == nil {
			found = append(found, a.Unmap())
			continue
		}
		list, failed := r.lookup(ctx, host)
		err = errors.Join(err, failed)
		for _, a := range list {
			found = append(found, a.Unmap().WithZone(""))
		}
	}
	return found, err
}
