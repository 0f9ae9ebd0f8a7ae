// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podwall/podwall/internal/agent/services"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/foreign"
	"github.com/podwall/podwall/internal/proxy/foreign/host"
	"github.com/podwall/podwall/internal/proxy/health"
	balancer "github.com/podwall/podwall/internal/proxy/ipvs/host"
	"github.com/podwall/podwall/internal/proxy/node"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/tables"
	"github.com/podwall/podwall/internal/wake"
)

// servicesSubject is the subject of the problem that the service proxy cannot start.
const servicesSubject = "service proxy"

// servicesAgain is the pause before the service proxy tries to start again.
const servicesAgain = 10 * time.Second

// proxy is the service proxy of an agent: a part of its own, whose failures are problems and never end the
// agent.
type proxy struct {
	cfg      config.Config
	store    *cluster.Store
	observer *observe.Observer
	clock    func() int64
	ready    func()         // called when Services are served for the first time
	api      netip.AddrPort // of the API server, if it is known by address
	tally    *nft.Tally     // of transactions, shared with the datapath
	log      *slog.Logger
	tables   atomic.Pointer[tables.Tables] // nil until it starts
	loop     atomic.Pointer[services.Loop] // nil until it starts
}

// Named names the port of a Service that this agent serves at an address and port, as namespace/name:port; "" if
// it serves none there.
func (p *proxy) Named(protocol inet.Protocol, at netip.AddrPort) string {
	if l := p.loop.Load(); l != nil {
		return l.Named(protocol, at)
	}
	return ""
}

// Ruleset writes the tables of Services that this agent has loaded; nothing where the proxy does not run.
func (p *proxy) Ruleset(out io.Writer) error {
	if t := p.tables.Load(); t != nil {
		return t.Ruleset(out)
	}
	return nil
}

// Behind returns the ports of Services that this agent serves and that lead to each destination.
func (p *proxy) Behind(to []denied.Destination) map[denied.Destination][]string {
	l := p.loop.Load()
	if l == nil {
		return nil
	}
	fronts := make([]program.Front, len(to))
	for i, d := range to {
		fronts[i] = program.Front{Addr: d.At.Addr(), Protocol: d.Protocol, Port: d.At.Port()}
	}
	found := map[denied.Destination][]string{}
	for i, list := range l.Behind(fronts) {
		found[to[i]] = list
	}
	return found
}

// newProxy returns the service proxy. If it shall run, the store keeps Services, and the node is not ready
// before they are served.
func newProxy(cfg config.Config, store *cluster.Store, observer *observe.Observer, clock func() int64,
	log *slog.Logger) *proxy {
	if cfg.RunServiceProxy {
		store.KeepServices()
		observer.RunServices()
	}
	return &proxy{cfg: cfg, store: store, observer: observer, clock: clock, tally: new(nft.Tally), log: log}
}

// start starts the service proxy, or removes what an earlier agent that ran it left in the kernel, which would
// not be kept up to date. server is the URL of the API server.
//
// locked reports whether this is the only agent of the node: the tables of another one are not removed.
func (p *proxy) start(ctx context.Context, g *errgroup.Group, server string, locked func() bool) {
	p.api = addressOf(server)
	if !p.cfg.RunServiceProxy {
		g.Go(func() error {
			p.remove(ctx, locked)
			return nil
		})
		return
	}
	g.Go(func() error {
		p.run(ctx)
		return nil
	})
}

// remove removes tables that an earlier agent left, again until it succeeds or ctx ends.
func (p *proxy) remove(ctx context.Context, locked func() bool) {
	for ctx.Err() == nil {
		if locked() {
			err := removeServices(p.log)
			if err == nil {
				p.observer.ClearProblem(servicesSubject)
				return
			}
			p.problem("tables of Services that an earlier agent left cannot be removed: "+err.Error(),
				"nothing, it is tried again", false)
		}
		pause(ctx, servicesAgain)
	}
}

// removeServices removes all of the service proxy from the kernel. IPVS goes first: without the tables it would serve
// clients that a Service does not admit.
func removeServices(log *slog.Logger) error {
	virtual := func(log *slog.Logger) error {
		_, err := balancer.Remove(log)
		return err
	}
	return inTurn(log, virtual, tables.Remove)
}

// inTurn takes steps until one fails.
func inTurn(log *slog.Logger, steps ...func(*slog.Logger) error) error {
	for _, step := range steps {
		if err := step(log); err != nil {
			return err
		}
	}
	return nil
}

// failedSubject is the subject of the problem that the service proxy had a panic.
const failedSubject = "failure of the service proxy"

// run serves Services until ctx ends.
func (p *proxy) run(ctx context.Context) { p.again(ctx, servicesAgain, p.serve) }

// again serves until ctx ends. A panic is an error of this part alone: policies go on, the kernel keeps the tables of
// Services, and after a pause the part starts with everything new (ADR 0036).
func (p *proxy) again(ctx context.Context, wait time.Duration, serve func(context.Context) error) {
	for {
		err := services.Contain(func() error { return serve(ctx) })
		if ctx.Err() != nil || err == nil {
			return
		}
		p.log.Error("the service proxy failed, the kernel keeps its tables", "err", err)
		p.observer.SetProblem(observe.Problem{Subject: failedSubject, Text: "changes of Services and endpoints are " +
			"not in force: " + firstLine(err), Cure: "nothing, it is started again; report it with the agent's log",
			Blocking: true})
		pause(ctx, wait)
		p.store.RestartServices()
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// serve runs the loop and what it needs until ctx ends. Its error is a panic of one of them; all others have ended
// then.
func (p *proxy) serve(ctx context.Context) error {
	t := p.open(ctx)
	if t == nil {
		return nil
	}
	defer func() { _ = t.close() }() // what is in the kernel stays
	p.tables.Store(t.Tables)
	moved := wake.New()
	others := &services.Others{Look: lookForProxies, Remove: host.Remove, Pods: p.pods,
		TakeOver: p.cfg.Services.TakeOver, Log: p.log}
	ports := wake.New()
	lb := health.New(health.Options{Address: p.cfg.LoadBalancerListen(), Log: p.log, Changed: ports.Set})
	loop := &services.Loop{Store: p.store, Kernel: t.kernel(p.log), Observer: p.observer, Log: p.log,
		Options: p.options(), Local: host.OwnAddresses, Moved: moved, Others: others, Limits: t.limits,
		Health: lb, PortsChanged: ports, Node: p.node, APIServer: p.api, SyncPeriod: p.cfg.SyncPeriod, Clock: p.clock,
		Served: func() {
			p.ready()
			p.observer.ClearProblem(failedSubject)
		}}
	p.loop.Store(loop)
	g, ctx := errgroup.WithContext(ctx)
	part := func(f func() error) {
		g.Go(func() error { return services.Contain(f) })
	}
	part(func() error { return t.Watch(ctx) })
	part(func() error { return t.await(ctx) })
	part(func() error {
		if err := links.WatchAddresses(ctx, moved.Set); err != nil {
			p.log.Warn("addresses of this node are seen at each verification only", "err", err)
		}
		return nil
	})
	part(func() error {
		lb.Run(ctx)
		return nil
	})
	part(func() error {
		loop.Run(ctx)
		return nil
	})
	err := g.Wait()
	p.loop.Store(nil)
	if err != nil {
		loop.Forget()
	}
	return err
}

// node sets connection tracking for Services, and looks for routes to them.
func (p *proxy) node(addrs []netip.Addr) (list []observe.Problem) {
	changed, problems := node.Apply(sysctl.Dir(p.cfg.SysctlRoot), node.Defaults(), node.Cores())
	for _, w := range changed {
		p.log.Info("setting changed for Services", "setting", w.Name, "was", w.Was, "value", w.Value)
	}
	problems = append(problems, node.NoRoutes(p.cfg.Services.ClusterRanges, addrs, node.HasRoute)...)
	for _, found := range problems {
		list = append(list, observe.Problem{Subject: found.Subject, Text: found.Text, Cure: found.Cure})
	}
	return list
}

// lookForProxies reads what other service proxies have on this node.
func lookForProxies(ctx context.Context) (foreign.Inventory, error) {
	inv, err := host.Look(ctx)
	if err != nil {
		return inv, err
	}
	inv.IPVS, err = balancer.Others()
	return inv, err
}

// pods returns the pods of kube-proxy on this node.
func (p *proxy) pods() (signs []foreign.Sign) {
	for _, pod := range p.store.PodsOn(p.cfg.NodeName) {
		// Tenants choose labels, but not whose pods are on the host's network of kube-system.
		system := pod.Key.Namespace == "kube-system" && pod.HostNetwork
		if system && pod.Labels.Get("k8s-app") == foreign.KubeProxy && !pod.Finished {
			signs = append(signs, foreign.Sign{Proxy: foreign.KubeProxy, Text: "the API server lists its pod " +
				pod.Key.String()})
		}
	}
	return signs
}

// open connects to the kernel, again until it succeeds or ctx ends; then it returns nil.
func (p *proxy) open(ctx context.Context) *backend {
	for ctx.Err() == nil {
		t, err := openBackend(p.cfg, p.tally, p.log)
		if err == nil {
			p.observer.ClearProblem(servicesSubject)
			return t
		}
		p.problem("Services are not served: "+err.Error(), cureOf(err), true)
		pause(ctx, servicesAgain)
	}
	return nil
}

func (p *proxy) problem(text, cure string, blocking bool) {
	problem := observe.Problem{Subject: servicesSubject, Text: text, Cure: cure, Blocking: blocking}
	problem.Log(p.log)
	p.observer.SetProblem(problem)
}

func (p *proxy) options() services.Options {
	s := p.cfg.Services
	return services.Options{Node: p.cfg.NodeName, APIServer: apiServer,
		ServiceRanges: s.ClusterRanges, ClusterPods: s.ClusterPods,
		EveryAddress: s.EveryAddress, MasqueradeAll: s.MasqueradeAll,
		IPVS: s.Backend == config.BackendIPVS, AnyExternal: s.AnyExternal,
		ExternalRanges: s.ExternalRanges, LoadBalancerRanges: s.LoadBalancerRanges}
}

// addressOf returns the address and port of a server's URL; the zero value if the URL has a name.
func addressOf(server string) netip.AddrPort {
	u, err := url.Parse(server)
	if err != nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return netip.AddrPort{}
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		port = 443
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port))
}
