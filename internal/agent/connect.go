// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/connect/socket"
)

// TerminationLog is the file of a container whose text the kubelet shows in the pod's status.
const TerminationLog = "/dev/termination-log"

// connectTime is how long Connect waits for answers: a SYN that is lost is sent again after one
// second and after three.
const connectTime = 5 * time.Second

// Connect sends a packet to each target and writes what came back as one line to out, and to the
// file log if there is one.
func Connect(ctx context.Context, targets []connect.Target, out io.Writer, log string) error {
	line, err := socket.Ask(ctx, targets, connectTime).Line()
	if err != nil {
		return err
	}
	if ctx.Err() != nil { // the answers are those of a shorter time
		return fmt.Errorf("asking: %w", ctx.Err())
	}
	if _, err := out.Write(line); err != nil {
		return fmt.Errorf("printing the answers: %w", err)
	}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, fs.ErrNotExist) { // this is no container
		return nil
	}
	if err == nil {
		_, err = f.Write(line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("writing the answers: %w", err)
	}
	return nil
}
