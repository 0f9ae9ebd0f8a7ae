// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnectReachesWhatServes(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	status := run(t.Context(), []string{"connect", "--to=" + addr}, &out, &errs)
	if status != 1 || !strings.Contains(errs.String(), "refused") {
		t.Errorf("where nobody serves: status %d, %q", status, errs.String())
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"serve", "--addr=" + addr}, io.Discard, io.Discard) }()
	for status := 1; status != 0; time.Sleep(time.Millisecond) {
		out.Reset()
		status = run(t.Context(), []string{"connect", "--to=" + addr}, &out, io.Discard)
	}
	if out.String() != "connected\n" {
		t.Errorf("it says %q", out.String())
	}
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("serving ended with status %d", status)
	}
	if status := run(t.Context(), []string{"connect"}, io.Discard, &errs); status != 2 {
		t.Errorf("without an address: status %d", status)
	}
}
