// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Label is one key and its value.
type Label struct{ Key, Value string }

// Labels are sorted by key. They implement labels.Labels, so that upstream's selectors match them:
// label semantics are upstream's.
type Labels []Label

var _ labels.Labels = Labels(nil)

// NewLabels sorts a map of labels.
func NewLabels(m map[string]string) Labels {
	if len(m) == 0 {
		return nil
	}
	l := make(Labels, 0, len(m))
	for k, v := range m {
		l = append(l, Label{k, v})
	}
	slices.SortFunc(l, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	return l
}

// Lookup returns the value of a label and whether it is present.
func (l Labels) Lookup(key string) (value string, ok bool) {
	i, ok := slices.BinarySearchFunc(l, key, func(e Label, k string) int { return strings.Compare(e.Key, k) })
	if !ok {
		return "", false
	}
	return l[i].Value, true
}

// Get returns the value of a label, or the empty string.
func (l Labels) Get(key string) string { v, _ := l.Lookup(key); return v }

// Has reports whether the label is present.
func (l Labels) Has(key string) bool { _, ok := l.Lookup(key); return ok }

// String returns key=value pairs separated by commas.
func (l Labels) String() string {
	var b strings.Builder
	for i, e := range l {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(e.Key + "=" + e.Value)
	}
	return b.String()
}
