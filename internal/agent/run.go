// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/source/kube"
	"github.com/podwall/podwall/internal/source/manifest"
)

// ErrPlacement means that this process is in the wrong place: in a network
// namespace that is not the node's, or in that of another agent.
var ErrPlacement = errors.New("cannot run here")

// Run runs the agent until ctx ends; out is for records of denied flows. Rules stay in the kernel when it returns.
// It returns soon after ctx ended, also if something that it began has not ended by then: see stopLimit. The process
// must end then.
func Run(ctx context.Context, cfg config.Config, version string, out io.Writer, log *slog.Logger) error {
	return endsWith(ctx, stopLimit, log, func() error { return run(ctx, cfg, version, out, log) })
}

func run(ctx context.Context, cfg config.Config, version string, out io.Writer, log *slog.Logger) error {
	observer := observe.New(observe.NewRegistry(), observe.Info{Node: cfg.NodeName, Version: version,
		Source: sourceName(cfg), Period: cfg.SyncPeriod})
	lock := newAgentLock(cfg.HealthListen(), observer, log)
	if err := lock.take(ctx); err != nil {
		return err
	}
	defer lock.release()
	ready, clock := thrift(os.Getenv, cfg.RunServiceProxy), ticks()
	store, options := newStore(cfg, clock), datapathOptions(cfg)
	observer.TellVersions(store.PolicyVersion)
	options.Announced, options.ExtraHardware = store.Announced, store.ExtraHardware
	services := newProxy(cfg, store, observer, clock, log)
	services.ready = ready
	options.Tally = services.tally
	unshown := checkSysctls(&options)
	kernel, err := datapath.Open(options, log)
	if err != nil {
		return err
	}
	defer kernel.Close()
	source, server, err := newSource(cfg, log)
	if err != nil {
		return err
	}
	if err := kernel.ReleaseNode(); err != nil {
		log.Warn("rules of an earlier process may still judge the node's own addresses as a pod's", "err", err)
	}
	reserved := newReserver(cfg, store, os.Getenv, log)
	if err := reserved.start(); err != nil {
		return err
	}
	if unshown != nil {
		unshown.Log(log)
		observer.SetProblem(*unshown)
	}
	endpoints := observe.Endpoints{Health: cfg.HealthListen(), Metrics: cfg.MetricsListen(),
		MetricsPath: cfg.MetricsPath, Log: log}
	servers, err := openPorts(observer, endpoints)
	if err != nil {
		return err
	}
	loop := &Loop{
		Node: cfg.NodeName, Store: store, Kernel: kernel, Observer: observer, Log: log,
		Clock:      clock,
		Options:    compile.Options{ClosedIPv4: !cfg.IPv4, ClosedIPv6: !cfg.IPv6},
		SyncPeriod: cfg.SyncPeriod, SyncTimeout: cfg.CacheSyncTimeout,
		Place: &Place{Local: kernel.LocalAddresses, Found: kernel.SetNodeAddresses,
			Optional: cfg.Manifests != ""},
		Gate:        NewGate(cfg.NodeName, store),
		OpenUnknown: options.OpenUnknown,
		Ready:       ready,
		Recorder:    newRecorder(cfg, store, services, source, observer, out, log),
	}
	loop.reach(source)
	opened := openGate(cfg.GateSocket, loop.Gate, observer, log)
	g, ctx := errgroup.WithContext(ctx)
	if opened != nil {
		g.Go(func() error {
			opened.Run(ctx)
			return nil
		})
	}
	for _, s := range servers {
		g.Go(func() error { return s.Run(ctx) })
	}
	services.start(ctx, g, server, lock.held)
	serveFlows(ctx, g, cfg, loop.Recorder, observer, pages(observer, kernel, services), log)
	g.Go(func() error {
		NewFeeds(source, observer, log).Run(ctx)
		return nil
	})
	g.Go(func() error { return lock.Run(ctx) })
	g.Go(func() error { return source.Run(ctx, store) })
	g.Go(func() error { return kernel.Watch(ctx) })
	g.Go(func() error { return reserved.watch(ctx) })
	g.Go(func() error { return reserved.resolve(ctx) })
	g.Go(func() error { return loop.Run(ctx) })
	return loop.ended(g.Wait())
}

func newStore(cfg config.Config, clock func() int64) *cluster.Store {
	store := cluster.NewStore()
	store.SetClock(clock)
	store.Allow(cluster.Allowance{Prefixes: cfg.ExtraAddresses.Prefixes, Hardware: cfg.ExtraAddresses.Hardware,
		Audit:           cfg.PolicyAudit != config.AuditForbid,
		AuditNamespaces: cfg.PolicyAudit == config.AuditNamespaces})
	return store
}

// ended logs what stays in the kernel when the agent stops.
func (l *Loop) ended(err error) error {
	switch {
	case err != nil:
	case l.ready:
		l.Log.Info("podwall-agent stops on a signal; its rules stay in the kernel")
	default:
		l.Log.Info("podwall-agent stops on a signal; it had loaded no rules")
	}
	return err
}

// ticks returns a clock that is never set: nanoseconds since now, and never 0.
func ticks() func() int64 {
	begin := time.Now()
	return func() int64 { return int64(time.Since(begin)) + 1 }
}

// openGate opens the gate for the container runtime. The agent works without it, too:
// pods are closed until the API names their addresses. So a failure is a problem, and no
// reason to stop.
func openGate(socket string, keeper *Gate, observer *observe.Observer, log *slog.Logger) *gate.Server {
	if socket == "" {
		return nil
	}
	s := &gate.Server{Keeper: keeper, Log: log,
		Answered: func(a gate.Answer, took time.Duration) { observer.AddGate(string(a), took) }}
	if err := s.Listen(socket); err != nil {
		log.Error("the start gate is not open", "err", err)
		observer.SetProblem(observe.Problem{Subject: "start gate", Text: err.Error(),
			Cure: cureForGate(socket, err)})
		return nil
	}
	return s
}

func cureForGate(socket string, err error) string {
	cure := "correct --gate-socket, or switch the gate off with --gate-socket="
	if errors.Is(err, unix.EROFS) {
		cure = fmt.Sprintf("mount the node's %s into the agent's container, writable (hostPath, "+
			"DirectoryOrCreate); or ",
			filepath.Dir(socket)) + cure
	}
	return cure
}

func datapathOptions(cfg config.Config) datapath.Options {
	guards := map[config.Guard]decide.Guard{
		config.GuardAuto: decide.GuardAuto, config.GuardOn: decide.GuardOn, config.GuardOff: decide.GuardOff,
	}
	return datapath.Options{
		Options: decide.Options{FilterHook: cfg.Datapath == config.DatapathFilter, Guard: guards[cfg.Guard],
			OpenUnknown:     cfg.UnknownPods == config.UnknownOpen,
			KeepConnections: cfg.OnPolicyChange == config.OnChangeKeep, DeniedGroup: cfg.DeniedGroup},
		Uplinks: cfg.Uplinks, Sysctls: sysctl.Dir(cfg.SysctlRoot),
	}
}

// source is a Source that reports the state of its connection.
type source interface {
	Source
	Feeder
}

// announcer is a source that reaches the authors of policies, over a connection.
type announcer interface {
	Announce(policy cluster.Key, findings []cluster.Diagnostic)
	Amend(policy cluster.Key, findings []cluster.Diagnostic)
	CountEvents(count func(result string))
	CountErrors(count func(reason string))
}

// reach connects the findings with a source that can report them to the authors of policies, and
// counts its Events and errors.
func (l *Loop) reach(s source) {
	if a, ok := s.(announcer); ok {
		a.CountEvents(l.Observer.AddEvent)
		a.CountErrors(l.Observer.AddSourceError)
		l.findings.announce, l.findings.amend = a.Announce, a.Amend
	}
}

// sourceName is the name of the source in the status.
func sourceName(cfg config.Config) string {
	if cfg.Manifests != "" {
		return "manifests"
	}
	return "kubernetes"
}

// newSource returns the source, and the URL of the API server; an empty one for manifests.
func newSource(cfg config.Config, log *slog.Logger) (s source, server string, err error) {
	if cfg.Manifests != "" {
		m := manifest.New(cfg.Manifests, log)
		if cfg.RunServiceProxy {
			m = m.WithServices()
		}
		return m, "", nil
	}
	rest, err := kube.LoadConfig(cfg.Kubeconfig, cfg.Master)
	if err != nil {
		return nil, "", err
	}
	k := kube.New(rest, log).OnNode(cfg.NodeName).Reloading(cfg.Kubeconfig, cfg.Master)
	if cfg.RunServiceProxy {
		k = k.WithServices()
	}
	return k, rest.Host, nil
}

func join(list []netip.Addr) string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
