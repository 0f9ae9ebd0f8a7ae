// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// The two ends of deploy/connectivity-check.sh: it tries an installation with the
// image that is there already, which has no shell.

// serve accepts TCP connections until ctx ends, and closes each.
func serve(ctx context.Context, args []string, stderr io.Writer) error {
	f := newFlags("serve", stderr)
	addr := f.String("addr", ":8080", "where to listen")
	if err := parse(f, args); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // Accept returns then
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting: %w", err)
		}
		_ = conn.Close() // that it was accepted is the answer
	}
}

// connect tries one TCP connection. It says "connected", or returns why not.
func connect(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("connect", stderr)
	to := f.String("to", "", "address and port")
	timeout := f.Duration("timeout", 3*time.Second, "how long to wait")
	if err := parse(f, args); err != nil {
		return err
	}
	if *to == "" {
		fmt.Fprintf(stderr, "%s: --to=ADDRESS:PORT is missing\n", f.Name())
		return errUsage
	}
	dialer := net.Dialer{Timeout: *timeout}
	conn, err := dialer.DialContext(ctx, "tcp", *to)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	fmt.Fprintln(stdout, "connected")
	return conn.Close()
}
