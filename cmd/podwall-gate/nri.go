// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/gate/nri"
	"github.com/podwall/podwall/internal/logging"
)

// serveNRI serves a container runtime by its Node Resource Interface until ctx ends.
func serveNRI(ctx context.Context, args []string, stderr io.Writer) error {
	f := newFlags("nri", stderr)
	socket := socketFlag(f)
	p := nri.Plugin{Skeleton: skeleton}
	f.StringVar(&p.Socket, "nri-socket", nri.DefaultSocket, "the runtime's socket")
	f.DurationVar(&p.Timeout, "timeout", nri.DefaultTimeout,
		"how long a pod's start waits; other pods' starts wait as long")
	onTimeout := f.String("on-timeout", "isolated", "isolated: the pod starts closed; refuse: it does not start")
	format := f.String("log-format", "auto", "auto, text or json")
	if err := parse(f, args); err != nil {
		return err
	}
	if *onTimeout != "isolated" && *onTimeout != "refuse" || p.Timeout <= 0 || p.Timeout > time.Minute {
		fmt.Fprintln(stderr, "podwall-gate nri: --on-timeout is isolated or refuse, --timeout is between 0 and 1m")
		return errUsage
	}
	p.Gate, p.Refuse = gate.Client{Socket: gate.DefaultSocket}, *onTimeout == "refuse"
	if *socket != "" {
		p.Gate.Socket = *socket
	}
	p.Log = logging.New(*format, 0, stderr, term.IsTerminal(int(os.Stderr.Fd())))
	p.Run(ctx)
	return nil
}
