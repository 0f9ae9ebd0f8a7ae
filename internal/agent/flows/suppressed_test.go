// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/netpol/denied"
)

// The time of packets without a record is when it was noticed that there are more, and stays when there are
// none again.
func TestPacketsWithoutARecordHaveATime(t *testing.T) {
	r := recorder()
	all := uint64(0)
	s := &Server{Recorder: r, Denied: func() (uint64, error) { return all, nil }}
	ask := func() (sum denied.Summary) {
		t.Helper()
		if err := s.count(t.Context(), &sum); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	if sum := ask(); sum.Suppressed != 0 || !sum.SuppressedTo.IsZero() {
		t.Errorf("nothing is denied: %+v", sum)
	}
	all = 5
	before := time.Now()
	first := ask()
	if first.Suppressed != 5 || first.SuppressedTo.Before(before) {
		t.Errorf("5 packets: %+v", first)
	}
	r.note(3)
	all = 8
	if sum := ask(); sum != first {
		t.Errorf("three recorded packets more: %+v, want %+v", sum, first)
	}
	all = 9
	if sum := ask(); sum.Suppressed != 6 || !sum.SuppressedTo.After(first.SuppressedTo) {
		t.Errorf("a packet more without a record: %+v, after %+v", sum, first)
	}
}

// The time is known as exactly while nobody asks.
func TestPacketsWithoutARecordAreNoticedWithoutAQuestion(t *testing.T) {
	s := &Server{Recorder: recorder(), Denied: func() (uint64, error) { return 4, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() {
		s.watch(ctx, time.Millisecond)
		close(ended)
	}()
	for seen := uint64(0); seen == 0; time.Sleep(time.Millisecond) {
		s.left.Lock()
		seen = s.left.packets
		s.left.Unlock()
	}
	cancel()
	<-ended
	noticed := s.left.until
	var sum denied.Summary
	if err := s.count(t.Context(), &sum); err != nil || sum.Suppressed != 4 || sum.SuppressedTo != noticed || noticed.IsZero() {
		t.Errorf("%+v, %v; noticed %s", sum, err, noticed)
	}
}

// An agent that cannot read the counters does not say that everything has a record.
func TestCountersThatCannotBeRead(t *testing.T) {
	var out bytes.Buffer
	s := &Server{Recorder: recorder(), Denied: func() (uint64, error) { return 0, errors.New("no table") }}
	to := &writer{json: json.NewEncoder(&out), control: http.NewResponseController(httptest.NewRecorder())}
	s.answer(t.Context(), to, time.Time{}, false)
	if text := out.String(); !strings.Contains(text, `"recording":false`) || !strings.Contains(text, "no table") {
		t.Errorf("it says %s", text)
	}
}
