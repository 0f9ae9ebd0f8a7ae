// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

// What came back is printed and is the container's termination message, if there is a container.
func TestAnswersAreTheTerminationMessage(t *testing.T) {
	ns := nftrun.Namespace(t)
	dir := t.TempDir()
	there, missing := filepath.Join(dir, "termination-log"), filepath.Join(dir, "none")
	const before = "something of before that is longer than what is written to it now, or it shows at the end"
	if err := os.WriteFile(there, []byte(before), 0o666); err != nil {
		t.Fatal(err)
	}
	err := ns.Do(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		targets := []connect.Target{{Protocol: inet.TCP, To: netip.MustParseAddrPort(l.Addr().String())},
			{Protocol: inet.TCP, To: netip.MustParseAddrPort("127.0.0.1:9")}}
		const want = `{"schema":"podwall.connect/v1","seconds":5,"answers":["connected","refused"]}` + "\n"
		for _, log := range []string{there, missing} {
			var out bytes.Buffer
			if err := Connect(t.Context(), targets, &out, log); err != nil || out.String() != want {
				t.Errorf("%q, %v", out.String(), err)
			}
		}
		if text, err := os.ReadFile(there); err != nil || string(text) != want {
			t.Errorf("the termination message is %q, %v", text, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		var out bytes.Buffer
		if err := Connect(ctx, targets, &out, there); !errors.Is(err, context.Canceled) || out.Len() > 0 {
			t.Errorf("interrupted: %q, %v", out.String(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it made a file")
	}
}
