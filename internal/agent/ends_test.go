// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestTheAgentEndsAlthoughAPassComputes(t *testing.T) {
	failed := errors.New("no right")
	for name, tt := range map[string]struct {
		run    func(ctx context.Context, computed <-chan struct{}) error
		limit  time.Duration
		want   error
		waited bool
	}{
		"it ends by itself": {func(context.Context, <-chan struct{}) error { return failed }, time.Hour, failed, true},
		"it ends with the context": {func(ctx context.Context, _ <-chan struct{}) error {
			<-ctx.Done()
			return failed
		}, time.Hour, failed, true},
		"a pass computes": {func(_ context.Context, computed <-chan struct{}) error {
			<-computed
			return failed
		}, time.Millisecond, nil, false},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			computed, text := make(chan struct{}), bytes.Buffer{}
			defer close(computed)
			if name != "it ends by itself" {
				cancel()
			}
			defer cancel()
			log := slog.New(slog.NewTextHandler(&text, nil))
			err := endsWith(ctx, tt.limit, log, func() error { return tt.run(ctx, computed) })
			if said := strings.Contains(text.String(), "does not wait"); !errors.Is(err, tt.want) || said == tt.waited {
				t.Errorf("it returns %v, want %v; the log says %q", err, tt.want, text.String())
			}
		})
	}
}
