// SPDX-License-Identifier: Apache-2.0

package denied

import (
	"slices"
	"time"
)

// fold is how long after its last packet a flow is the same record: a client that tries
// again and again is one.
const fold = time.Minute

// Ring keeps the newest records, up to its size. The zero value keeps none. It is not safe
// for concurrent use.
type Ring struct {
	size    int
	records []*Record // the oldest first
	open    map[key]*Record
	dropped uint64
}

// key says which packets are of one record.
type key struct {
	Flow
	direction string
}

// NewRing returns a ring of so many records.
func NewRing(size int) *Ring { return &Ring{size: size, open: map[key]*Record{}} }

// Add adds a record, or counts it with an equal flow's of the last minute.
func (r *Ring) Add(next Record) {
	k := key{next.Flow, next.Direction}
	if known := r.open[k]; known != nil && next.First.Sub(known.Last) < fold {
		known.Count += next.Count
		known.Last, known.Policies, known.Nearest = next.Last, next.Policies, next.Nearest
		return
	}
	if r.size == 0 {
		r.dropped++
		return
	}
	if len(r.records) == r.size {
		oldest := r.records[0]
		if k := (key{oldest.Flow, oldest.Direction}); r.open[k] == oldest {
			delete(r.open, k)
		}
		r.records = slices.Delete(r.records, 0, 1)
		r.dropped++
	}
	r.records, r.open[k] = append(r.records, &next), &next
}

// Since returns the records whose last packet was not before a time, the oldest first.
func (r *Ring) Since(t time.Time) []Record {
	list := []Record{}
	for _, known := range r.records {
		if !known.Last.Before(t) {
			list = append(list, *known)
		}
	}
	return list
}

// Dropped is how many records had to give way to newer ones.
func (r *Ring) Dropped() uint64 { return r.dropped }
