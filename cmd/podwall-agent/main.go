// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command podwall-agent makes Kubernetes NetworkPolicy true on the node that it
// runs on. It takes the place of kube-router's firewall and accepts its command
// line; see docs/configuration.md.
//
// Exit status: 0 stopped by a signal or done, 1 failed while running (among
// them: the first sync did not complete in time), or --probe says no, 2 wrong
// command line, 3 this machine cannot enforce (no right, no nftables, kernel too
// old), 4 wrong place (not the node's network namespace, or another agent runs in
// it), 5 a one-off command was refused because of the state of the node; nothing
// was changed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
	"k8s.io/klog/v2"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/logging"
)

// version is set by the build.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, notices, err := config.Parse(args, os.Getenv, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "podwall-agent: %v\n", err)
		return 2
	case cfg.Version:
		fmt.Fprintf(stdout, "podwall-agent %s\n", version)
		return 0
	}
	if cfg.Probe != config.ProbeNone {
		return probe(ctx, cfg, stdout)
	}
	if len(cfg.Connect) > 0 {
		return connect(ctx, cfg, stdout, stderr)
	}
	log := logging.New(string(cfg.LogFormat), cfg.Verbosity, stderr, term.IsTerminal(int(os.Stderr.Fd())))
	klog.SetSlogLogger(log)
	for _, n := range notices {
		log.Info("flag has no effect here", "flag", n.Flag, "why", n.Text)
	}
	switch {
	case cfg.Cleanup:
		err = agent.Cleanup(ctx, cfg, log)
	case cfg.OpenNode != "":
		err = agent.OpenNode(ctx, cfg, log, stdout)
	case cfg.CloseNode:
		err = agent.CloseNode(ctx, stdout)
	case cfg.Removal != config.RemovalNone:
		err = agent.RemoveKubeRouter(ctx, cfg.Removal, stdout)
	case cfg.ListDenied != 0:
		err = agent.ListDenied(ctx, cfg, stdout)
	case cfg.Show != config.ShowNone:
		err = agent.Show(ctx, cfg, stdout)
	case cfg.Uninstall != config.StepNone:
		err = agent.Uninstall(ctx, cfg, stdout)
	default:
		log.Info("podwall-agent starts", "version", version, "node", cfg.NodeName)
		err = agent.Run(ctx, cfg, version, stdout, log)
	}
	switch {
	case err == nil:
	case cfg.ListDenied != 0 || cfg.Show != config.ShowNone: // kubectl podwall shows it to its user
		fmt.Fprintf(stderr, "podwall-agent: %s\n", logging.Plain(err.Error()))
	default:
		log.Error("podwall-agent stops", "err", err)
	}
	return status(err)
}

// probe asks the agent of this node.
func probe(ctx context.Context, cfg config.Config, stdout io.Writer) int {
	text, ok := agent.Probe(ctx, cfg)
	// names of pods and of processes are in it
	fmt.Fprintln(stdout, logging.Plain(strings.ReplaceAll(text, "\n", "; ")))
	if !ok {
		return 1
	}
	return 0
}

// connect sends packets from the network namespace that it runs in.
func connect(ctx context.Context, cfg config.Config, stdout, stderr io.Writer) int {
	if err := agent.Connect(ctx, cfg.Connect, stdout, agent.TerminationLog); err != nil {
		fmt.Fprintf(stderr, "podwall-agent: %v\n", err)
		return 1
	}
	return 0
}

func status(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, datapath.ErrUnsupported):
		return 3
	case errors.Is(err, agent.ErrPlacement):
		return 4
	case errors.Is(err, agent.ErrRefused):
		return 5
	}
	return 1
}
