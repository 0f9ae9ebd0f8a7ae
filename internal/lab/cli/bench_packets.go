// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/meter"
	"github.com/podwall/podwall/internal/lab/measure/packets"
)

const (
	defaultRounds = 12
	quickRounds   = 2
	defaultSettle = 5 * time.Second
	// meterCommand is how this program calls itself to measure.
	meterCommand = "meter"
)

type benchPackets struct {
	benchFlags
	bed    bedFlags
	rounds int
	loud   bool

	wiring             string
	kubeAPI, kubeProxy string
	peers              []string
	settle             time.Duration
}

func newBenchPackets(version string, s Streams) *cobra.Command {
	var b benchPackets
	cmd := &cobra.Command{
		Use:   "packets [GROUP]…",
		Short: "Measure the CPU time of packets and requests",
		Long: `packets measures CPU time: of a packet of an established flow, of the first
packet of a flow, of a request with and without a connection of its own, and of
a stream. Client, server and both nodes are counted.

For each setting two nodes are made, whose agents write their rules. The rules
are then switched off and on, in random order, round by round; the base of a row
is the same stage in the same round with the rules off. Without a group all are
measured, which takes about ten minutes.

With the programs that "make kubeapi" builds next to this one, the real
kube-proxy runs next to the agent in most rows; else a stand-in does. The report
says which.

The groups are ` + strings.Join(packets.Groups[:], ", ") + ".\n\n" + benchStatusHelp,
		Example: `  podwall-lab bench packets
  podwall-lab bench packets pods --rounds 40 --out bench
  podwall-lab bench packets datapath wiring -o markdown
  podwall-lab bench packets peers \
    --peer 'other=exec other-agent --kubeconfig=$KUBECONFIG'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.run(cmd, version, s, args)
		},
	}
	b.benchFlags.bind(cmd)
	cmd.Flags().StringVar(&b.bed.agent, "agent", "",
		"podwall-agent `PROGRAM`; by default the one next to this program, else the one in PATH")
	cmd.Flags().StringVar(&b.bed.cniBin, "cni-bin", os.Getenv("PODWALL_CNI_BIN"),
		"`DIR` of the CNI plugins, for the wirings cni-bridge and cni-ptp")
	cmd.Flags().StringVar(&b.wiring, "wiring", string(lab.Routed),
		"how pods are wired, but in the groups wiring and found: one `NAME` of "+wiringNames())
	cmd.Flags().IntVar(&b.rounds, "rounds", defaultRounds, "how `OFTEN` each setting is measured")
	cmd.Flags().StringVar(&b.kubeAPI, "kubeapi", "",
		"API server `PROGRAM` for kube-proxy and peers; by default the one next to this program")
	cmd.Flags().StringVar(&b.kubeProxy, "kube-proxy", "",
		"kube-proxy `PROGRAM` for the base; by default the one next to this program, else a stand-in; "+
			"none: the stand-in")
	cmd.Flags().StringArrayVar(&b.peers, "peer", nil,
		"measure another agent too: `NAME=COMMAND`, run by sh in each node with KUBECONFIG and NODE_NAME set")
	cmd.Flags().DurationVar(&b.settle, "settle", defaultSettle,
		"how long a peer gets to write its rules, each time it is started")
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
	peers, err := b.parsePeers()
	if err != nil {
		return err
	}
	wirings, err := parseWirings([]string{b.wiring})
	if err != nil {
		return err
	}
	if err := b.bed.ready(wirings); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program: %w", err)
	}
	cfg := packets.Config{Groups: groups, Wiring: wirings[0], CNIBin: b.bed.cniBin, Rounds: b.rounds, Quick: b.quick,
		Agent: b.bed.agent, Meter: []string{self, meterCommand},
		KubeAPI: nextTo(b.kubeAPI, "kubeapi"), KubeProxy: nextTo(b.kubeProxy, "kube-proxy"), Peers: peers}
	if len(peers) > 0 && cfg.KubeAPI == "" {
		return errors.New("peers need an API server: run `make kubeapi`, or name it with --kubeapi")
	}
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

// parsePeers reads the peers; each name stands once in the tables.
func (b *benchPackets) parsePeers() ([]packets.Peer, error) {
	var list []packets.Peer
	for _, text := range b.peers {
		name, command, ok := strings.Cut(text, "=")
		if !ok || name == "" || command == "" {
			return nil, fmt.Errorf("peer %q, want NAME=COMMAND", text)
		}
		if slices.ContainsFunc(list, func(p packets.Peer) bool { return p.Name == name }) {
			return nil, fmt.Errorf("peer %q is given twice", name)
		}
		list = append(list, packets.Peer{Name: name, Command: command, Settle: b.settle})
	}
	return list, nil
}

// nextTo returns the program that was named, else the one next to this program if there is
// one. "none" names none.
func nextTo(named, name string) string {
	switch named {
	case "":
		return command.Next(name)
	case "none":
		return ""
	}
	return named
}

// newMeter is the command by which this program measures, in a process that has
// nothing else to do.
func newMeter() *cobra.Command {
	return &cobra.Command{
		Use:    meterCommand,
		Short:  "Measure what is asked on standard input",
		Hidden: true,
		Args:   command.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return meter.Serve(os.Stdin, os.Stdout) },
	}
}
