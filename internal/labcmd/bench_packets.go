// SPDX-License-Identifier: Apache-2.0

//go:build linux

package labcmd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/bench"
	"github.com/podwall/podwall/internal/measure/meter"
	"github.com/podwall/podwall/internal/measure/packets"
)

const (
	defaultRounds = 15
	quickRounds   = 2
	// meterCommand is how this program calls itself to measure.
	meterCommand = "meter"
)

type benchPackets struct {
	benchFlags
	bed    bedFlags
	rounds int
	loud   bool
}

func newBenchPackets(version string, s Streams) *cobra.Command {
	var b benchPackets
	cmd := &cobra.Command{
		Use:   "packets [" + strings.Join(packets.Groups[:], "|") + "]…",
		Short: "What packets and requests cost: CPU time, with and without the agent's rules",
		Long: `packets measures CPU time: of a packet of an established flow, of the first
packet of a flow, of a request with and without a connection of its own, and of
a stream. Client, server and both nodes are counted.

For each setting two nodes are made, whose agents write their rules. The rules
are then switched off and on, in random order, round by round; the base of a row
is the same stage in the same round with the rules off. Without a group all are
measured, which takes about ten minutes.`,
		Example: `  podwall-lab bench packets
  podwall-lab bench packets pods --rounds 40 --out bench
  podwall-lab bench packets datapath wiring -o markdown`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.run(cmd, version, s, args)
		},
	}
	b.benchFlags.bind(cmd)
	cmd.Flags().StringVar(&b.bed.agent, "agent", "", "podwall-agent `PROGRAM`; by default the one beside this program, else the one in PATH")
	cmd.Flags().IntVar(&b.rounds, "rounds", defaultRounds, "how `OFTEN` each setting is measured")
	cmd.Flags().BoolVar(&b.loud, "progress", false, "say on standard error what is going on")
	b.bed.datapath = "nat" // each setting has its own
	return cmd
}

func (b *benchPackets) run(cmd *cobra.Command, version string, s Streams, groups []string) error {
	if err := b.check(); err != nil {
		return err
	}
	if b.rounds < 1 {
		return fmt.Errorf("--rounds is %d, want 1 or more", b.rounds)
	}
	if err := b.bed.ready(nil); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program: %w", err)
	}
	cfg := packets.Config{Groups: groups, Rounds: b.rounds, Quick: b.quick, Agent: b.bed.agent, Meter: []string{self, meterCommand}}
	if b.quick {
		cfg.Rounds = min(b.rounds, quickRounds)
	}
	if b.loud {
		cfg.Log = slog.New(slog.NewTextHandler(s.Err, nil))
	}
	return b.measured(cmd, version, s, func(ctx context.Context, r *bench.Report) error {
		if len(groups) > 0 {
			r.Command += " " + strings.Join(groups, " ")
		}
		return packets.Run(ctx, cfg, r)
	})
}

// newMeter is the command by which this program measures, in a process that has
// nothing else to do.
func newMeter() *cobra.Command {
	return &cobra.Command{
		Use:    meterCommand,
		Short:  "Measure what is asked on standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return meter.Serve(os.Stdin, os.Stdout) },
	}
}
