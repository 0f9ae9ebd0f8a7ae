// SPDX-License-Identifier: Apache-2.0

package pace_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/podwall/podwall/internal/pace"
)

func TestALoopRestsAfterATurn(t *testing.T) {
	var r pace.Rest
	if left := r.Left(); left != 0 {
		t.Errorf("before the first turn it rests %s", left)
	}
	r.After(time.Now().Add(-time.Hour))
	if left := r.Left(); left <= 0 || left > 20*time.Millisecond {
		t.Errorf("after a turn of an hour it rests %s", left)
	}
}

func TestTheWaitAfterFailuresDoubles(t *testing.T) {
	var r pace.Retry
	for _, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		if got := r.Failed(); got != want {
			t.Errorf("the wait is %s, want %s", got, want)
		}
	}
	for range 100 {
		if got := r.Failed(); got > 30*time.Second {
			t.Fatalf("the wait grows to %s", got)
		}
	}
	r.Succeeded()
	if got := r.Failed(); got != 500*time.Millisecond {
		t.Errorf("the first wait after a success is %s", got)
	}
}

func TestScansLeaveTheTableAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]time.Duration{0: 0, 5 * time.Millisecond: 45 * time.Millisecond,
			10 * time.Millisecond: 60 * time.Millisecond, time.Second: time.Second} {
			var r pace.Rest
			r.AfterScan(time.Now().Add(-took))
			if left := r.Left(); left != want {
				t.Errorf("after a scan of %s it rests %s, want %s", took, left, want)
			}
		}
	})
}
