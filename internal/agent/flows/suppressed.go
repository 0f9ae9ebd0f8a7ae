// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/podwall/podwall/internal/netpol/denied"
)

// Packets are on their way to the recorder for a tenth of a second (see nflog), so that one look at the
// kernel's counters finds packets without a record that will have one.
const (
	looks    = 8
	lookEach = 37 * time.Millisecond
)

// countEach is how often it is looked for packets without a record while nobody asks: their time is known
// as exactly.
const countEach = 10 * time.Second

// leftOut is what is known of denied packets that have no record.
type leftOut struct {
	sync.Mutex
	packets uint64
	until   time.Time // when the last ones were noticed; zero if there are none
}

// watch counts them until ctx ends, so that their time is known.
func (s *Server) watch(ctx context.Context, each time.Duration) {
	if s.Recorder == nil {
		return
	}
	tick := time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.count(ctx, &denied.Summary{}) // who asks learns of it
		}
	}
}

// count finds out how many packets have no record, and until when there were any.
func (s *Server) count(ctx context.Context, sum *denied.Summary) error {
	s.left.Lock()
	defer s.left.Unlock()
	now, err := s.suppressed(ctx, s.left.packets)
	if err != nil {
		return fmt.Errorf("the kernel's counters of denied packets cannot be read: %w", err)
	}
	if now > s.left.packets {
		s.left.until = time.Now()
	}
	s.left.packets = now // fewer if some were on their way for long
	if now > 0 {
		sum.Suppressed, sum.SuppressedTo = now, s.left.until
	}
	return nil
}

// suppressed returns how many packets were denied and have no record: the least that a few looks find, or
// that it was before. Each look reads the recorder first, so that none finds too few.
func (s *Server) suppressed(ctx context.Context, before uint64) (least uint64, err error) {
	for look := range looks {
		if look > 0 {
			select {
			case <-ctx.Done():
				return least, nil
			case <-time.After(lookEach):
			}
		}
		known := s.Recorder.known()
		all, err := s.Denied()
		if err != nil {
			return 0, err
		}
		missing := all - min(all, known)
		if least = min(least, missing); look == 0 {
			least = missing
		}
		if least <= before {
			break
		}
	}
	return least, nil
}
