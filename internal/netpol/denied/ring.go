// SPDX-License-Identifier: Apache-2.0

package denied

import (
	"slices"
	"time"
)

// Flows are the same record until a minute has passed without a packet: a client that tries
// again and again is one. It is shown again when repeat has passed.
const (
	fold   = time.Minute
	repeat = 10 * time.Second
)

// Ring keeps the newest records, up to its size. The zero value keeps none. It is not safe
// for concurrent use.
type Ring struct {
	size    int
	records []*kept // the oldest first
	open    map[key]*kept
	dropped uint64
	// lastDropped is the latest last packet of a dropped record.
	lastDropped time.Time
}

// kept is a record, and when it was shown.
type kept struct {
	Record
	shown time.Time
}

// NewRing returns a ring of so many records.
func NewRing(size int) *Ring { return &Ring{size: size, open: map[key]*kept{}} }

// Add adds a record, or counts it with that of the same flow in the last minute, which it returns
// as it is now. show is true if who follows the records should see it: it is new, or was not shown
// for ten seconds.
func (r *Ring) Add(next Record) (now Record, show bool) {
	k := key{next.flow, next.by}
	if known := r.open[k]; known != nil && next.First.Sub(known.Last) < fold {
		next.First, next.Count = known.First, known.Count+next.Count
		if show = next.Last.Sub(known.shown) >= repeat; show {
			known.shown = next.Last
		}
		known.Record = next
		return next, show
	}
	if r.size == 0 {
		r.drop(next)
		return next, true
	}
	if len(r.records) == r.size {
		oldest := r.records[0]
		if k := (key{oldest.flow, oldest.by}); r.open[k] == oldest {
			delete(r.open, k)
		}
		r.records = slices.Delete(r.records, 0, 1)
		r.drop(oldest.Record)
	}
	r.open[k] = &kept{Record: next, shown: next.Last}
	r.records = append(r.records, r.open[k])
	return next, true
}

// Since returns the records whose last packet was not before a time, the oldest first.
func (r *Ring) Since(t time.Time) []Record {
	list := []Record{}
	for _, known := range r.records {
		if !known.Last.Before(t) {
			list = append(list, known.Record)
		}
	}
	return list
}

func (r *Ring) drop(one Record) {
	r.dropped++
	if one.Last.After(r.lastDropped) {
		r.lastDropped = one.Last
	}
}

// Dropped is how many records had to give way to newer ones, and the latest last packet of those.
func (r *Ring) Dropped() (n uint64, last time.Time) { return r.dropped, r.lastDropped }
