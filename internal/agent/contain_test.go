// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
)

// A panic of the service proxy ends nothing else: it is a problem that blocks, and the part starts again with
// everything new.
func TestAPanicOfTheServiceProxyIsContained(t *testing.T) {
	_, o, _ := states()
	store := cluster.NewStore()
	store.KeepServices()
	fill := func(tx *cluster.Tx) {
		tx.SetService(&cluster.Service{Key: cluster.Key{Namespace: "shop", Name: "web"}})
	}
	store.Update(fill)
	var out bytes.Buffer
	p := newProxy(config.Config{}, store, o, nil, slog.New(slog.NewTextHandler(&out, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	p.again(ctx, time.Millisecond, func(ctx context.Context) error {
		tries++
		if got := len(store.TakeServices().Services); got != 1 {
			t.Errorf("start %d finds %d Services, want all", tries, got)
		}
		blocked := false
		for _, x := range o.Status().Problems {
			blocked = blocked || x.Subject == failedSubject && x.Blocking && strings.HasSuffix(x.Text, ": panic: an odd Service")
		}
		if blocked != (tries > 1) {
			t.Errorf("at start %d there is a problem: %t", tries, blocked)
		}
		if tries < 3 {
			panic("an odd Service")
		}
		cancel()
		return nil
	})
	if tries != 3 {
		t.Errorf("it was started %d times, want 3", tries)
	}
	if text := out.String(); strings.Count(text, "level=ERROR") != 2 || !strings.Contains(text, "contain_test.go") {
		t.Errorf("the log has not two errors with their stacks:\n%s", text)
	}
}
