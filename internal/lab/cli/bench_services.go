// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/services"
)

type benchServices struct {
	benchFlags
	bed       bedFlags
	cfg       services.Config
	sizes     []string
	kubeProxy string
}

// defaultSizes are the numbers of Services and endpoints that are measured by default.
func defaultSizes() []string {
	return []string{"10x2", "1000x2", "10000x2", "30000x2", "1000x50", "30000x50", "1000x2-ipv6", "1000x2-bridge"}
}

func newBenchServices(version string, s Streams) *cobra.Command {
	var b benchServices
	cmd := &cobra.Command{
		Use:   "services",
		Short: "Measure what Services cost, next to kube-proxy",
		Long: `services measures the agent's service proxy and kube-proxy in its nftables and
iptables modes, each on a node of its own, with the same Services: the time from
the start until the kernel has all of them, from a replaced endpoint until the
kernel has it, also at 100 a second with 10,000 Services, after a restart,
processor time and memory; then the processor time of packets to Services,
against packets to a pod's own address in the same place.

kube-proxy is the program that "make kube-proxy" builds next to this one, which
is newer than the cluster of the tests; else the one of "make kubeapi"; else
podwall is measured alone. The whole takes about 40 minutes.

Without --sizes it measures
  ` + strings.Join(defaultSizes(), ", ") + `

` + benchStatusHelp,
		Example: `  podwall-lab bench services --quick
  podwall-lab bench services --sizes 10x2,10000x2 --out bench`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd, version, s) },
	}
	b.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&b.bed.agent, "agent", "",
		"podwall-agent `PROGRAM`; by default the one next to this program, else the one in PATH")
	f.StringVar(&b.kubeProxy, "kube-proxy", "",
		"kube-proxy `PROGRAM`; by default one next to this program; none: podwall alone")
	f.StringSliceVar(&b.sizes, "sizes", defaultSizes(), "how many Services there are, with how many endpoints "+
		"each, and what is special: `SIZE`, as 1000x2-ipv6-bridge")
	f.Lookup("sizes").DefValue = "[]" // too wide for a line; above
	f.IntVar(&b.cfg.Rounds, "rounds", defaultRounds, "how `OFTEN` packets are measured")
	f.IntVar(&b.cfg.Changes, "changes", 20, "how `MANY` endpoints are replaced, one after the other")
	f.DurationVar(&b.cfg.Rush, "rush", time.Minute, "how `LONG` 100 endpoints a second are replaced; 0 for not at all")
	b.bed.datapath = "nat"
	return cmd
}

func (b *benchServices) run(cmd *cobra.Command, version string, s Streams) error {
	if err := b.check(); err != nil {
		return err
	}
	b.cfg.Quick = b.quick
	if b.quick {
		b.small(cmd)
	}
	for _, text := range b.sizes {
		size, err := services.ParseSize(text)
		if err != nil {
			return err
		}
		b.cfg.Sizes = append(b.cfg.Sizes, size)
	}
	if b.cfg.Rounds < 1 || b.cfg.Changes < 1 || b.cfg.Rush < 0 {
		return errors.New("--rounds and --changes must be 1 or more, --rush not negative")
	}
	if err := b.findPrograms(); err != nil {
		return err
	}
	begin := time.Now()
	b.cfg.Progress = func(text string) { fmt.Fprintf(s.Err, "%6.1f s  %s\n", time.Since(begin).Seconds(), text) }
	return b.measured(cmd, version, s, func(ctx context.Context, r *bench.Report) error {
		return services.Run(ctx, b.cfg, r)
	})
}

// small sets what was not given to what is enough to see that it works.
func (b *benchServices) small(cmd *cobra.Command) {
	set := func(name string, small func()) {
		if !cmd.Flags().Changed(name) {
			small()
		}
	}
	set("sizes", func() { b.sizes = []string{"10x2", "100x2", "10x2-ipv6-bridge"} })
	set("rounds", func() { b.cfg.Rounds = quickRounds })
	set("changes", func() { b.cfg.Changes = 1 })
}

// newProxy is the kube-proxy of `make kube-proxy`.
const newProxy = "kube-proxy-1.37"

func (b *benchServices) findPrograms() error {
	if err := b.bed.ready(nil); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program: %w", err)
	}
	b.cfg.Agent, b.cfg.Meter = b.bed.agent, []string{self, meterCommand}
	b.cfg.KubeProxy = nextTo(b.kubeProxy, newProxy)
	if b.kubeProxy == "" && b.cfg.KubeProxy == "" {
		b.cfg.KubeProxy = nextTo("", "kube-proxy")
	}
	return nil
}
