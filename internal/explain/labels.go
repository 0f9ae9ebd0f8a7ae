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
		why[i] = fmt.Sprintf("needs %s, has %s", requirement(r), has(l, r.Key()))
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
func labelChange(field string, p *cluster.Policy, item cluster.Peer, peer *cluster.Pod) string {
	missed := misses(item.Pods, peer.Labels)
	if len(missed) == 1 && in(missed[0].Operator()) && len(missed[0].ValuesUnsorted()) == 1 {
		if value, ok := peer.Labels.Lookup(missed[0].Key()); ok {
			return fmt.Sprintf("set %s of %s.podSelector to %q", missed[0].Key(), field, value)
		}
	}
	if len(peer.Labels) == 0 {
		return fmt.Sprintf("give %s a label and add an item for it next to %s", peer.Key, field)
	}
	return fmt.Sprintf("add %s next to %s", itemFor(p, peer), field)
}

func in(o selection.Operator) bool {
	return o == selection.In || o == selection.Equals || o == selection.DoubleEquals
}

// itemFor is an item of from or to that means the peer's labels in its namespace. The
// API server gives each namespace the label with its name.
func itemFor(p *cluster.Policy, peer *cluster.Pod) string {
	text := make([]string, 0, len(peer.Labels))
	for _, e := range peer.Labels {
		text = append(text, fmt.Sprintf("%s: %s", e.Key, e.Value))
	}
	pods := "podSelector: {}"
	if len(text) > 0 {
		pods = fmt.Sprintf("podSelector: {matchLabels: {%s}}", strings.Join(text, ", "))
	}
	if peer.Key.Namespace == p.Key.Namespace {
		return "{" + pods + "}"
	}
	return fmt.Sprintf("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, %s}", peer.Key.Namespace, pods)
}
