// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"encoding/binary"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// echo passes each event of a watch on twice, then the previous event, and then the event once more.
type echo struct {
	from   io.ReadCloser
	ready  []byte
	last   []byte
	echoes *atomic.Int64
}

func (e *echo) Close() error { return e.from.Close() }

// Read reads from the events; each is a number of four bytes and so many bytes.
func (e *echo) Read(b []byte) (int, error) {
	if len(e.ready) == 0 {
		head := make([]byte, 4)
		if _, err := io.ReadFull(e.from, head); err != nil {
			return 0, err
		}
		event := append(head, make([]byte, binary.BigEndian.Uint32(head))...)
		if _, err := io.ReadFull(e.from, event[4:]); err != nil {
			return 0, err
		}
		e.ready = append(append(append(e.ready, event...), event...), e.last...)
		if e.last != nil { // the newest is last, which counts
			e.ready = append(e.ready, event...)
		}
		e.last = event
		e.echoes.Add(1)
	}
	n := copy(b, e.ready)
	e.ready = e.ready[n:]
	return n, nil
}

// Repeated events, and older ones between newer ones, change nothing in the end: the last event counts, and
// denied packets never pass.
func TestEventsThatComeAgainUnderTraffic(t *testing.T) {
	w := newAPIWorld(t)
	config, err := w.server.RESTConfig()
	check(t, err)
	at := netip.AddrPortFrom(w.at.Addr(), w.at.Port()+3)
	var echoes atomic.Int64
	newFront(t, w.host, at, config, func(r *http.Response) error {
		if strings.Contains(r.Request.URL.RawQuery, "watch=") && strings.Contains(r.Header.Get("Content-Type"), "protobuf") {
			r.Body = &echo{from: r.Body, echoes: &echoes}
		}
		return nil
	})
	a := w.connect("http://" + at.String())
	tr := w.traffic()
	for i := range soak.Times(4, 40) {
		w.toggle(i%2 == 0)
		w.enforces("an event that came again", i%2 == 0)
	}
	if echoes.Load() < 4 {
		t.Errorf("%d events came again: nothing was shown", echoes.Load())
	}
	if code, _ := a.Get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz answers %d, want 200", code)
	}
	tr.finish(true)
}
