// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/control"
)

// kubeAPIVariable names the test API server, as tests have it.
const kubeAPIVariable = "PODWALL_KUBEAPI"

func newBenchControl(version string, s Streams) *cobra.Command {
	var common benchFlags
	var bed bedFlags
	var cfg control.Config
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Measure what a change of the cluster costs the agent of a node",
		Long: `control runs podwall-agent on a node of a lab and changes the cluster around it:
the time from a change until the kernel has it, one at a time and at 100 changes
a second; the first sync; a full verification; processor time idle and under
load; memory of the agent and of the kernel.

api      the real API server, 8,000 pods, 1,000 services, 500 policies
large    100,000 pods, 10,000 policies, from a small API server in this process
tenants  604 namespaces, 5,413 pods, 13,678 policies, likewise
memory   8,000, 50,000 and 100,000 pods under the same 500 policies

The whole takes about half an hour.

` + benchStatusHelp,
		Example: `  podwall-lab bench control --quick                      does it work here
  podwall-lab bench control --only large --rounds 10     the large cluster alone`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := common.check(); err != nil {
				return err
			}
			if err := checkParts(cfg.Only); err != nil {
				return err
			}
			if cfg.Rounds < 1 {
				return fmt.Errorf("--rounds is %d, want 1 or more", cfg.Rounds)
			}
			if common.quick && !cmd.Flags().Changed("rounds") {
				cfg.Rounds = 1
			}
			if err := findKubeAPI(&cfg, cmd.Flags().Changed("kubeapi")); err != nil {
				return err
			}
			if err := bed.ready(nil); err != nil {
				return err
			}
			begin := time.Now()
			cfg.Agent, cfg.AgentArgs, cfg.Quick = bed.agent, []string{"--datapath=" + bed.datapath}, common.quick
			cfg.Progress = func(text string) { fmt.Fprintf(s.Err, "%6.1f s  %s\n", time.Since(begin).Seconds(), text) }
			return common.measured(cmd, version, s, func(ctx context.Context,
				r *bench.Report) error {
				return control.Run(ctx, cfg, r)
			})
		},
	}
	common.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&bed.agent, "agent", "",
		"podwall-agent `PROGRAM`; by default the one next to this program, else the one in PATH")
	f.StringVar(&bed.datapath, "datapath", "nat", "where the agent judges packets: `nat|filter`")
	f.StringVar(&cfg.KubeAPI, "kubeapi", os.Getenv(kubeAPIVariable),
		"test API server `PROGRAM` (make kubeapi); by default $"+kubeAPIVariable+", else kubeapi next to this program")
	f.IntVar(&cfg.Rounds, "rounds", 5, "how often each figure is taken")
	f.StringSliceVar(&cfg.Only, "only", nil, "measure these `PARTS` only: "+strings.Join(control.Parts(), ", "))
	return cmd
}

func checkParts(only []string) error {
	for _, name := range only {
		if !slices.Contains(control.Parts(), name) {
			return fmt.Errorf("unknown part %q, want one of %s", name, strings.Join(control.Parts(), ", "))
		}
	}
	return nil
}

// findKubeAPI completes the path of the API server. One that was asked for must
// be there; otherwise none is fine.
func findKubeAPI(cfg *control.Config, asked bool) error {
	if cfg.KubeAPI == "" && !asked {
		cfg.KubeAPI = command.Next("kubeapi")
		return nil
	}
	if cfg.KubeAPI == "" {
		return nil
	}
	var err error
	cfg.KubeAPI, err = command.Find("the API server", cfg.KubeAPI)
	return err
}
