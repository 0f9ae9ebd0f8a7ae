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
	Services
	EndpointSlices
	kinds
)

// Kinds returns the kinds that policies need; they are always watched.
func Kinds() []Kind { return []Kind{Namespaces, Pods, Policies, Nodes} }

// ServiceKinds returns the kinds that a service proxy needs.
func ServiceKinds() []Kind { return []Kind{Services, EndpointSlices, Nodes, Pods} }

// String returns the plural resource name.
func (k Kind) String() string {
	return [...]string{"namespaces", "pods", "networkpolicies", "nodes", "services", "endpointslices"}[k]
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
	// PolicyVersion is what Tx.HeardPolicies was told last; empty for a source without versions.
	PolicyVersion string
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
	// AuditNamespaces is true if namespaces may put their policies into audit mode; see Allowance.
	AuditNamespaces bool
}

// Store is where a source collects objects and where the agent reads the changes. Its methods may
// be called from several goroutines; stored objects are never modified.
//
// It has two readers, one that enforces policies (Changed, Missing, Take) and a service proxy
// (ServicesChanged, MissingServices, TakeServices). Neither learns of what only the other needs.
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
	heard       string       // see Tx.HeardPolicies
	diagnostics findings     // but for those about Services
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
	proxied     proxied
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
		nodes:       newNodes(),
		diagnostics: findings{},
		announced:   newAnnouncements(),
		holders:     holders{},
		reserved:    newReserved(),
		extras:      newExtras(),
		proxied:     newProxied(),
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
	proxied := s.noteProxied(tx.proxied)
	s.mu.Unlock()
	if tx.changed {
		s.changed.Set()
	}
	if proxied {
		s.proxied.changed.Set()
	}
}

// Missing returns the kinds of Kinds whose first complete list has not arrived. While there are any,
// policies must not be written to the kernel (invariant 2).
func (s *Store) Missing() []Kind { return s.missing(Kinds()) }

func (s *Store) missing(of []Kind) []Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []Kind
	for _, k := range of {
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

		PolicyVersion: s.heard,
	}
}

// PolicyVersion returns what Tx.HeardPolicies was told last, if nothing has changed since a revision: then it
// is the version of the policies of that revision.
func (s *Store) PolicyVersion(revision uint64) (version string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard, s.revision == revision
}

// Snapshot returns the whole cluster. Its cost grows with the cluster; the
// agent's loop uses Take.
func (s *Store) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Snapshot{
		Revision:   s.revision,
		Namespaces: s.namespaces.sorted(),
		Pods:       s.pods.sorted(),
		Policies:   s.policies.sorted(),

		AuditNamespaces: s.extras.allowed.AuditNamespaces,
	}
}
