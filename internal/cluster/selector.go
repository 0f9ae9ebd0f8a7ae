// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Selector matches labels. The zero value matches nothing: a selector that was forgotten or could
// not be parsed must never match everything.
type Selector struct{ parsed *parsedSelector }

// parsedSelector wraps upstream's selector, but matches requirements with many values itself:
// upstream compares with one value after the other.
type parsedSelector struct {
	match labels.Selector // without the requirements in large
	large []largeRequirement
	text  string
	exact []Label
	size  int
}

// largeRequirement requires a value in a set (in), or outside it.
type largeRequirement struct {
	key    string
	values map[string]struct{}
	in     bool
}

// manyValues is the number of values above which a requirement uses a map.
const manyValues = 16

// Everything is the empty selector of the API, `{}`.
func Everything() Selector { return NewSelector(labels.Everything()) }

// NewSelector wraps a parsed selector. Its String must be canonical (upstream sorts requirements by
// key), because equal text is taken as equal meaning.
func NewSelector(s labels.Selector) Selector {
	requirements, selectable := s.Requirements()
	p := &parsedSelector{match: s, text: s.String()}
	small := labels.NewSelector()
	for _, r := range requirements {
		p.narrow(r)
		if len(r.ValuesUnsorted()) > manyValues && p.enlarge(r) {
			continue
		}
		small = small.Add(r)
	}
	if selectable && len(p.large) > 0 {
		p.match = small
	}
	p.size = sizeOf(requirements, p.exact)
	return Selector{p}
}

// narrow keeps the labels of the requirement, of which every match has one, if they are fewer than
// the ones kept so far.
func (p *parsedSelector) narrow(r labels.Requirement) {
	if !in(r.Operator()) {
		return
	}
	if values := r.ValuesUnsorted(); p.exact == nil || len(values) < len(p.exact) {
		p.exact = make([]Label, 0, len(values))
		for _, v := range values {
			p.exact = append(p.exact, Label{r.Key(), v})
		}
	}
}

func (p *parsedSelector) enlarge(r labels.Requirement) bool {
	if !in(r.Operator()) && r.Operator() != selection.NotIn {
		return false
	}
	l := largeRequirement{key: r.Key(), in: in(r.Operator()),
		values: make(map[string]struct{}, len(r.ValuesUnsorted()))}
	for _, v := range r.ValuesUnsorted() {
		l.values[v] = struct{}{}
	}
	p.large = append(p.large, l)
	return true
}

func in(o selection.Operator) bool {
	return o == selection.In || o == selection.Equals || o == selection.DoubleEquals
}

// The size of a selector is the cost of keeping and matching it, counted in labels: see
// Selector.Size.
const (
	oneLabel         = 4
	exactRequirement = 8
	broadRequirement = 256
)

func sizeOf(requirements labels.Requirements, exact []Label) int {
	each, size := exactRequirement, 1
	if len(exact) == 0 {
		each = broadRequirement
	}
	for _, r := range requirements {
		size += each + len(r.ValuesUnsorted())
	}
	if len(requirements) == 1 && len(exact) > 0 {
		size = oneLabel + len(exact) // by far most selectors
	}
	return size
}

// Matches reports whether the selector matches the labels.
func (s Selector) Matches(l Labels) bool {
	if s.parsed == nil || !s.parsed.match.Matches(l) {
		return false
	}
	for i := range s.parsed.large {
		if !s.parsed.large[i].matches(l) {
			return false
		}
	}
	return true
}

func (r *largeRequirement) matches(l Labels) bool {
	value, has := l.Lookup(r.key)
	_, listed := r.values[value]
	return r.in == (has && listed)
}

// Exact returns labels such that every match has at least one of them; none if the selector has no
// such requirement.
func (s Selector) Exact() []Label {
	if s.parsed == nil {
		return nil
	}
	return s.parsed.exact
}

// Keys returns the keys of all labels on which the answer of Matches depends; a key may be there
// twice.
func (s Selector) Keys() (list []string) {
	if s.parsed == nil {
		return nil
	}
	requirements, _ := s.parsed.match.Requirements()
	for i := range requirements {
		list = append(list, requirements[i].Key())
	}
	for _, l := range s.parsed.large {
		list = append(list, l.key)
	}
	return list
}

// Size returns the cost of the selector, in entries (see Budgets): the number of its values if it
// only names values of one label, and more if it must be matched against every pod.
func (s Selector) Size() int {
	if s.parsed == nil {
		return 0
	}
	return s.parsed.size
}

// Valid reports whether the selector is set.
func (s Selector) Valid() bool { return s.parsed != nil }

// MatchesAll reports whether this is the empty selector, which matches
// everything.
func (s Selector) MatchesAll() bool {
	return s.parsed != nil && s.parsed.match.Empty() && len(s.parsed.large) == 0
}

// Text returns the canonical text of the requirements, empty for the empty
// selector. Two selectors with equal text match the same labels.
func (s Selector) Text() string {
	if s.parsed == nil {
		return "<none>" // no selector has this text
	}
	return s.parsed.text
}

// String returns the canonical text for people: "all" for the empty selector
// and "none" for the zero value.
func (s Selector) String() string {
	switch {
	case s.parsed == nil:
		return "none"
	case s.MatchesAll():
		return "all"
	}
	return s.parsed.text
}
