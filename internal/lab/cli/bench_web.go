// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/web"
)

type benchWeb struct {
	bench   benchFlags
	bed     bedFlags
	cfg     web.Config
	peers   []string
	streams Streams
}

func newBenchWeb(version string, s Streams) *cobra.Command {
	b := &benchWeb{streams: s, bed: bedFlags{datapath: "nat"}}
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Measure ab against a Service among 1,000, as kube-router was",
		Long: `web measures as kube-router was measured: ab asks one Service with two nginx
pods, among 1,000 Services of 2, 6 and 8 pods that do nothing, under one policy
of three rules that selects every pod. All objects are in a real API server, and
a real kube-proxy in nftables mode runs on both nodes. It shows requests per
second and the CPU time of a request, without an agent, with podwall, with
podwall in place of kube-proxy too, and with each peer. All of it is in network
namespaces with no way out.

It needs the programs kubeapi and kube-proxy (make kubeapi), and nginx, ab and
nft (Debian: nginx, apache2-utils, nftables; no service needs to run).

A peer is any other agent, as NAME=COMMAND. The command is run by sh -c in the
network namespace of each node, with KUBECONFIG and NODE_NAME set; SIGTERM goes
to all its processes at the end of its turn, SIGKILL ten seconds later. It must
then have taken away what it put into the kernel: see the example.

` + benchStatusHelp,
		Example: `  podwall-lab bench web
  podwall-lab bench web --pods 2000,8000 --concurrency 10,100 --out bench
  podwall-lab bench web \
    --peer 'other=trap : TERM; other-agent; other-agent --cleanup'`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd, version) },
	}
	b.bench.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&b.bed.agent, "agent", "",
		"podwall-agent `PROGRAM`; by default the one next to this program, else the one in PATH")
	f.StringVar(&b.cfg.KubeAPI, "kubeapi", "",
		"API server `PROGRAM`; by default kubeapi next to this program, else the one in PATH")
	f.StringVar(&b.cfg.KubeProxy, "kube-proxy", "",
		"kube-proxy `PROGRAM`; by default the one next to this program, else the one in PATH")
	f.StringVar((*string)(&b.cfg.Wiring), "wiring", string(lab.Routed), "how pods are wired: `routed|bridge`")
	f.IntVar(&b.cfg.Services, "services", 1000, "`NUMBER` of Services that do nothing")
	f.IntSliceVar(&b.cfg.Pods, "pods", []int{2000, 6000, 8000}, "`NUMBERS` of pods behind them, growing")
	f.IntSliceVar(&b.cfg.Concurrency, "concurrency", []int{1, 10, 50, 100, 200, 500},
		"`NUMBERS` of requests that ab keeps open")
	f.IntVar(&b.cfg.Requests, "requests", 5000,
		"`NUMBER` of requests of each run of ab, which lasts 10 seconds at most")
	f.IntVar(&b.cfg.Rounds, "rounds", 6, "`NUMBER` of turns of each setting")
	f.StringArrayVar(&b.peers, "peer", nil, "also measure another agent, `NAME=COMMAND`; may be repeated")
	return cmd
}

func (b *benchWeb) run(cmd *cobra.Command, version string) error {
	if err := b.bench.check(); err != nil {
		return err
	}
	if b.bench.quick {
		b.small(cmd)
	}
	if err := b.readPeers(); err != nil {
		return err
	}
	b.cfg.Limit = 10 * time.Second
	b.cfg.Say = func(text string) { fmt.Fprintln(b.streams.Err, text) }
	if err := b.cfg.Check(); err != nil {
		return err
	}
	if err := b.findPrograms(); err != nil {
		return err
	}
	if err := b.bed.ready([]lab.Wiring{b.cfg.Wiring}); err != nil {
		return err
	}
	b.cfg.Agent = b.bed.agent
	return b.bench.measured(cmd, version, b.streams, b.measure)
}

func (b *benchWeb) measure(ctx context.Context, r *bench.Report) error {
	got, err := web.Run(ctx, b.cfg)
	if err != nil {
		return err
	}
	r.Rows, r.Plots, r.Notes = got.Rows, got.Plots, got.Notes
	return nil
}

// small makes a run of a few seconds, but for what was asked for by name.
func (b *benchWeb) small(cmd *cobra.Command) {
	set := func(name string, small func()) {
		if !cmd.Flags().Changed(name) {
			small()
		}
	}
	set("services", func() { b.cfg.Services = 20 })
	set("pods", func() { b.cfg.Pods = []int{2 * b.cfg.Services, 4 * b.cfg.Services} })
	set("concurrency", func() { b.cfg.Concurrency = []int{1, 10} })
	set("requests", func() { b.cfg.Requests = 200 })
	set("rounds", func() { b.cfg.Rounds = 1 })
}

func (b *benchWeb) readPeers() error {
	for _, text := range b.peers {
		name, command, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("peer %q: want NAME=COMMAND", text)
		}
		b.cfg.Peers = append(b.cfg.Peers, web.Peer{Name: name, Command: command})
	}
	return nil
}

// findPrograms reports all that is missing at once, and where it comes from.
func (b *benchWeb) findPrograms() error {
	var errs []error
	for _, p := range []struct {
		name, from string
		path       *string
	}{
		{"kubeapi", "run `make kubeapi`, or name it with --kubeapi", &b.cfg.KubeAPI},
		{"kube-proxy", "run `make kubeapi`, or name it with --kube-proxy", &b.cfg.KubeProxy},
		{"nginx", "Debian's package nginx", &b.cfg.Nginx},
		{"ab", "Debian's package apache2-utils", &b.cfg.AB},
		{"nft", "kube-proxy calls it: Debian's package nftables", new(string)},
	} {
		path, err := findProgram(p.name, *p.path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is missing (%s)", p.name, p.from))
		}
		*p.path = path
	}
	if len(errs) > 0 {
		// One line, as all errors of this command.
		return errors.New(strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
	}
	return nil
}

// findProgram is command.Find, which also looks where the system keeps its daemons: that is not in
// the PATH of every user.
func findProgram(name, named string) (string, error) {
	path, err := command.Find(name, named)
	if err != nil && named == "" {
		return command.Find(name, filepath.Join("/usr/sbin", name))
	}
	return path, err
}
