// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command podwall-lab tries network policies on this machine's kernel, without
// a cluster: pods are network namespaces, nodes run podwall-agent.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/podwall/podwall/internal/labcmd"
)

// version is set by the build.
var version = "development"

func main() { os.Exit(run()) }

// run ends early, and leaves nothing behind, also when nobody reads the answer
// any more (SIGPIPE).
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	return labcmd.Run(ctx, version, os.Args[1:], labcmd.Streams{Out: os.Stdout, Err: os.Stderr, Color: color()})
}

// color follows no-color.org: no escape codes for pipes and for those who do
// not want them.
func color() bool {
	return term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
