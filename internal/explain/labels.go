// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/podwall/podwall/internal/cluster"
)

// whyNot says which requirement of a selector the labels do not meet.
func whyNot(field string, s cluster.Selector, l cluster.Labels) string {
	if !s.Valid() {
		return field + ": it was not understood"
	}
	missed := misses(s, l)
	if len(missed) == 0 {
		return field + ": does not match"
	}
	why := make([]string, len(missed))
	for i, r := range missed {
		why[i] = line("needs %s, has %s", requirement(r), has(l, r.Key()))
	}
	return field + ": " + strings.Join(why, "; ")
}

// misses returns the requirements that the labels do not meet.
func misses(s cluster.Selector, l cluster.Labels) (list []labels.Requirement) {
	parsed, err := labels.Parse(s.Text())
	if err != nil { // it was parsed before
		return nil
	}
	requirements, _ := parsed.Requirements()
	for _, r := range requirements {
		if !r.Matches(l) {
			list = append(list, r)
		}
	}
	return list
}

// maxValues is how many values of a requirement are shown.
const maxValues = 5

func requirement(r labels.Requirement) string {
	values := slices.Sorted(slices.Values(r.ValuesUnsorted()))
	more := ""
	if n := len(values) - maxValues; n > 0 {
		values, more = values[:maxValues], fmt.Sprintf(" and %d more", n)
	}
	list := strings.Join(values, ",") + more
	switch r.Operator() {
	case selection.Exists:
		return "the label " + r.Key()
	case selection.DoesNotExist:
		return "no label " + r.Key()
	case selection.NotIn, selection.NotEquals:
		return fmt.Sprintf("%s not in (%s)", r.Key(), list)
	}
	if len(r.ValuesUnsorted()) == 1 {
		return r.Key() + "=" + list
	}
	return fmt.Sprintf("%s in (%s)", r.Key(), list)
}

func has(l cluster.Labels, key string) string {
	if value, ok := l.Lookup(key); ok {
		return key + "=" + value
	}
	return "no " + key
}

// labelChange proposes the smallest change of an item of from or to: one value of its
// podSelector, if only that is wrong, else an item for the peer.
func labelChange(field string, p *cluster.Policy, item cluster.Peer, q question) string {
	missed := misses(item.Pods, q.peer.pod.Labels)
	if len(missed) == 1 && in(missed[0].Operator()) && len(missed[0].ValuesUnsorted()) == 1 {
		if value, ok := q.peer.pod.Labels.Lookup(missed[0].Key()); ok {
			return line("set %s of %s.podSelector to %q", missed[0].Key(), field, value)
		}
	}
	return addPeer(field, p, q)
}

func in(o selection.Operator) bool {
	return o == selection.In || o == selection.Equals || o == selection.DoubleEquals
}
