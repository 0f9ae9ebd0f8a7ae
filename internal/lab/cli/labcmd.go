// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package cli holds the commands of podwall-lab: demo, run, check and
// ruleset. It owns their flags, what they print, and their exit status: 0 all
// as it should be, 1 something differs, 2 wrong command line or the machine
// cannot run it, 3 an object of the manifests could not be read, or a policy is
// not enforced as it is written.
//
// It measures nothing itself: package trial puts agents into a bed of package
// lab and sends the packets. What should be the case it asks of package oracle
// and of expectations written by hand, never of the code that the agent runs.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/logging"
)

// Streams are where the commands write: answers to Out, everything else to Err.
type Streams struct {
	Out, Err io.Writer
	In       io.Reader // of -f -
	// Color is true when Out is a terminal that wants it.
	Color bool
}

// The exit statuses.
const (
	statusDiffers    = 1
	statusUsage      = 2
	statusNotWritten = 3 // what is enforced is not what the manifests say
)

// The exit statuses in the help of commands.
const (
	verdictStatusHelp = `Exit status: 0 every verdict is the expected one; 1 some are not; 2 wrong command
line, or this machine cannot run it; 130 interrupted.`
	benchStatusHelp = `Exit status: 0 measured, whether or not the bars are met; 2 wrong command line,
or it could not be measured; 130 interrupted.`
)

// exit is the error of a command that has said everything already.
type exit struct{ status int }

func (e exit) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// Run runs one command line and returns the exit status.
func Run(ctx context.Context, version string, args []string, s Streams) int {
	out := &answer{to: s.Out}
	s.Out = out
	s.In = command.Input(ctx, s.In)
	root := newRoot(version, s)
	root.SetArgs(args)
	err := command.Check(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if out.err != nil {
		err = fmt.Errorf("printing the answer: %w", out.err)
	}
	var e exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.status
	}
	for line := range strings.SplitSeq("podwall-lab: "+err.Error(), "\n") {
		fmt.Fprintln(s.Err, logging.Plain(line))
	}
	return statusUsage
}

// answer remembers the first failure to print, so that a truncated answer never
// looks like a whole one.
type answer struct {
	to  io.Writer
	err error
}

func (a *answer) Write(b []byte) (int, error) {
	n, err := a.to.Write(b)
	if a.err == nil {
		a.err = err
	}
	return n, err
}

func newRoot(version string, s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "podwall-lab",
		Short: "Network policies on this machine's kernel, without a cluster",
		Long: `podwall-lab makes a small cluster out of network namespaces on this machine,
runs podwall-agent in each node, sends real packets and says which arrived.

It needs Linux, and root or user namespaces. Nothing of the machine is changed
and nothing can leave the lab: it has no way out and goes away with the process.

Exit status: 0 all as it should be; 1 something differs; 2 wrong command line, or
this machine cannot run it; 3 an object of the manifests could not be read, or a
policy is not enforced as it is written; 130 interrupted.`,
		Example: `  podwall-lab demo
  podwall-lab run -f ./manifests
  podwall-lab check testdata/cases/recipes.jsonl
  podwall-lab ruleset -f ./manifests --node node1`,
		Version: version,
		Args:    command.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newDemo(s), newRun(s), newCheck(s), newRuleset(s), newBench(version, s, newBenchPackets,
		newBenchWeb, newBenchControl, newBenchServices), newMeter())
	command.Setup(root, s.Out, s.Err)
	return root
}

// bedFlags are the flags of all commands that run agents.
type bedFlags struct {
	agent, cniBin, datapath string
	extra                   extraFlags // of those commands that bind it
}

func (b *bedFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&b.agent, "agent", "",
		"podwall-agent `PROGRAM`; by default the one next to this program, else the one in PATH")
	f.StringVar(&b.cniBin, "cni-bin", os.Getenv("PODWALL_CNI_BIN"),
		"`DIR` of the CNI plugins, for the wirings cni-bridge and cni-ptp")
	f.StringVar(&b.datapath, "datapath", "nat", "where the agent judges packets: `nat|filter`")
}

// ready checks everything that can be checked before anything is printed, and
// makes sure that namespaces can be made. It may run this program again inside
// a user namespace; then the returned error only carries its status.
func (b *bedFlags) ready(wirings []lab.Wiring) error {
	if b.datapath != "nat" && b.datapath != "filter" {
		return fmt.Errorf("unknown datapath %q, want nat or filter", b.datapath)
	}
	for _, w := range wirings {
		if strings.HasPrefix(string(w), "cni-") && b.cniBin == "" {
			return fmt.Errorf("wiring %s needs the CNI plugins: name their directory with --cni-bin", w)
		}
	}
	agent, err := b.findAgent()
	if err != nil {
		return err
	}
	b.agent = agent
	status, again, err := netns.Enter()
	switch {
	case err != nil:
		return err
	case again:
		return exit{status}
	}
	return nil
}

// start builds a bed and starts its agents; ready must have succeeded.
// The states to come have the used addresses, their pods some of them.
func (b *bedFlags) start(ctx context.Context, w lab.Wiring, nodes []string, used, pods []netip.Addr) (*trial.Trial,
	error) {
	args := []string{"--datapath=" + b.datapath}
	if b.extra.text != "" {
		args = append(args, "--extra-addresses="+b.extra.text)
	}
	t, err := trial.New(ctx, trial.Config{Wiring: w, Nodes: nodes, CNIBin: b.cniBin, Used: used, Pods: pods,
		Hairpin: true, OwnServices: true,
		Agent: b.agent, AgentArgs: args})
	if err != nil {
		return nil, fmt.Errorf("starting the lab with wiring %s: %w", w, err)
	}
	return t, nil
}

func (b *bedFlags) findAgent() (string, error) {
	path, err := command.Find("podwall-agent", b.agent)
	if err != nil {
		return "", fmt.Errorf("%w; build it, or name it with --agent", err)
	}
	return path, nil
}

func parseWirings(list []string) ([]lab.Wiring, error) {
	var wirings []lab.Wiring
	for _, s := range list {
		w := lab.Wiring(s)
		if !slices.Contains(lab.Wirings[:], w) {
			return nil, fmt.Errorf("unknown wiring %q, want one of %s", s, wiringNames())
		}
		wirings = append(wirings, w)
	}
	if len(wirings) == 0 {
		return nil, fmt.Errorf("no wiring given, want one of %s", wiringNames())
	}
	return wirings, nil
}

func wiringNames() string {
	var names []string
	for _, w := range lab.Wirings {
		names = append(names, string(w))
	}
	return strings.Join(names, ", ")
}
