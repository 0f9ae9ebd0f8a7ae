// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"reflect"
	"sync"

	"github.com/podwall/podwall/internal/wake"
)

// Kind is a watched kind of object.
type Kind uint8

// The watched kinds.
const (
	Namespaces Kind = iota
	Pods
	Policies
	Nodes
	kinds
)

// Kinds returns all watched kinds.
func Kinds() []Kind { return []Kind{Namespaces, Pods, Policies, Nodes} }

// String returns the plural resource name.
func (k Kind) String() string {
	return [...]string{"namespaces", "pods", "networkpolicies", "nodes"}[k]
}

// Change is one object that was added, deleted or changed. Old is nil for a new object, New for a
// deleted one.
type Change[T any] struct{ Old, New *T }

// Delta is everything that changed between two calls of Store.Take. Several changes of one object
// are one Change, from the first Old to the last New.
type Delta struct {
	// Revision is the store's revision after this delta.
	Revision   uint64
	Namespaces []Change[Namespace]
	Pods       []Change[Pod]
	Policies   []Change[Policy]
	Nodes      []Change[Node]
	// Source identifies the content that the source delivered last; see Tx.SetSource.
	Source string
	// Since is the time of the first of these changes by the store's clock; 0 without a clock or a
	// change.
	Since       int64
	Diagnostics []Diagnostic // all current ones, sorted; not a difference
}

// Snapshot is the whole cluster at one revision, each kind sorted by key.
type Snapshot struct {
	Revision   uint64
	Namespaces []*Namespace
	Pods       []*Pod
	Policies   []*Policy
}

// Store is where a source collects objects and where the agent reads the changes. Its methods may
// be called from several goroutines; stored objects are never modified.
type Store struct {
	changed wake.Signal // holds at most one wake-up
	wants   wake.Signal // likewise, for policies that were left out

	mu          sync.Mutex // guards everything below
	revision    uint64
	synced      [kinds]bool
	namespaces  table[Namespace]
	pods        table[Pod]
	policies    table[Policy]
	nodes       table[Node]
	source      string
	diagnostics map[any][]Diagnostic
	told        []Diagnostic // all diagnostics, sorted; nil after a change
	budgets     budgets      // of policies, by namespace
	wanted      map[Key]bool // policies that have room again
	announced   announcements
	holders     holders
	reserved    reserved
	extras      extras
	settled     bool // nothing changed that the phase of an announcement depends on
	clock       func() int64
	since       int64 // time of the first change since the last Take
}

// NewStore returns an empty store in which no kind is synced.
func NewStore() *Store {
	return &Store{
		changed: wake.New(),
		wants:   wake.New(),
		budgets: budgets{},
		wanted:  map[Key]bool{},
		namespaces: newTable(func(n *Namespace) Key { return Key{Name: n.Name} },
			func(a, b *Namespace) bool { return reflect.DeepEqual(a, b) }),
		pods:        newTable(func(p *Pod) Key { return p.Key }, (*Pod).Equal),
		policies:    newTable(func(p *Policy) Key { return p.Key }, samePolicy),
		nodes:       newTable(nodeKey, (*Node).Equal),
		diagnostics: map[any][]Diagnostic{},
		announced:   newAnnouncements(),
		holders:     holders{},
		reserved:    newReserved(),
		extras:      newExtras(),
	}
}

// SetClock sets a clock, in any unit, that the store reads when something changes. It must be
// called before the first object is stored.
func (s *Store) SetClock(clock func() int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = clock
}

// Changed receives a value after something changed. One wake-up may stand for many changes.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Update applies a batch of changes as one: Take sees all of it or nothing.
func (s *Store) Update(change func(tx *Tx)) {
	s.mu.Lock()
	tx := Tx{store: s}
	change(&tx)
	if tx.changed {
		s.revision++
		if s.since == 0 && s.clock != nil {
			s.since = s.clock()
		}
	}
	if !s.settled {
		s.updatePhases()
		s.settled = true
	}
	s.mu.Unlock()
	if tx.changed {
		s.changed.Set()
	}
}

// Missing returns the kinds whose first complete list has not arrived. While there are any, the
// kernel must not be changed (invariant 2).
func (s *Store) Missing() []Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []Kind
	for k := range kinds {
		if !s.synced[k] {
			missing = append(missing, k)
		}
	}
	return missing
}

// Take returns the changes since the last Take.
func (s *Store) Take() Delta {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.since
	s.since = 0
	return Delta{
		Revision:    s.revision,
		Since:       since,
		Namespaces:  s.namespaces.take(),
		Pods:        s.pods.take(),
		Policies:    s.policies.take(),
		Nodes:       s.nodes.take(),
		Source:      s.source,
		Diagnostics: s.sortedDiagnostics(),
	}
}

// Snapshot returns the whole cluster. Its cost grows with the cluster; the
// agent's loop uses Take.
func (s *Store) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := &Snapshot{
		Revision:   s.revision,
		Namespaces: s.namespaces.list(),
		Pods:       s.pods.list(),
		Policies:   s.policies.list(),
	}
	snap.sort()
	return snap
}
