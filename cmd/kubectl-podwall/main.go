// SPDX-License-Identifier: Apache-2.0

// Command kubectl-podwall answers questions about network policies: who reaches whom, and
// why. As a file of that name in PATH it is the kubectl command "podwall".
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
	"k8s.io/klog/v2"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/kubectl"
)

// version is set by the build.
var version = "development"

func main() { os.Exit(run()) }

func run() int {
	// The commands say what failed. client-go's own log would also have what an interrupt ends, and texts of
	// servers as they are.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status := kubectl.Run(ctx, version, os.Args[1:], kubectl.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Color: color()})
	return command.Status(ctx, status)
}

// color follows no-color.org.
func color() bool {
	return term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
