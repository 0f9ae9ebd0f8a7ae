// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command podwall-lab tries network policies on this machine's kernel, without
// a cluster: pods are network namespaces, nodes run podwall-agent. It owns the
// process alone: signals, exit status, output; package lab/cli has the commands.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab/cli"
)

// version is set by the build.
var version = "development"

func main() { os.Exit(run()) }

// run ends early, and leaves nothing behind, also when nobody reads the answer
// any more. The signal that says so (SIGPIPE) would end us without a word, and it
// comes for every connection that is written to after its other end has gone. So it
// is taken and not looked at, and the write's error counts.
func run() int {
	interrupted, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, unread := context.WithCancel(interrupted)
	defer unread()
	status := cli.Run(ctx, version, os.Args[1:], cli.Streams{In: os.Stdin,
		Out: answer{os.Stdout, unread}, Err: answer{os.Stderr, unread}, Color: color()})
	return command.Status(interrupted, status)
}

// answer is a stream that somebody reads, or has stopped to.
type answer struct {
	to     io.Writer
	unread func()
}

func (a answer) Write(b []byte) (int, error) {
	n, err := a.to.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		a.unread()
	}
	return n, err
}

// color follows no-color.org: no escape codes for pipes and for those who do
// not want them.
func color() bool {
	return term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
