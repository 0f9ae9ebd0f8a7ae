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
	if key, value, ok := wrongValue(item.Pods, q.peer.pod.Labels); ok {
		return line("set %s of %s.podSelector to %q", key, field, value)
	}
	return addPeer(field, p, q)
}

// namespaceChange does the same for an item whose namespaces do not match: one value of its
// namespaceSelector, if the pod matches and no namespace does. Otherwise the rule is for
// others, who would lose it.
func (c *Cluster) namespaceChange(field string, p *cluster.Policy, item cluster.Peer, q question) string {
	n := c.namespaces[q.peer.pod.Key.Namespace]
	if n != nil && item.Namespaces != nil && item.Pods.Matches(q.peer.pod.Labels) &&
		!c.selectsNamespace(*item.Namespaces) {
		if key, value, ok := wrongValue(*item.Namespaces, n.Labels); ok {
			return line("set %s of %s.namespaceSelector to %q", key, field, value)
		}
	}
	return addPeer(field, p, q)
}

func (c *Cluster) selectsNamespace(s cluster.Selector) bool {
	return slices.ContainsFunc(c.snapshot.Namespaces, func(n *cluster.Namespace) bool { return s.Matches(n.Labels) })
}

// wrongValue returns the key of the one requirement that the labels do not meet, and the
// value that they have; ok is false unless one value for another would meet it.
func wrongValue(s cluster.Selector, l cluster.Labels) (key, value string, ok bool) {
	missed := misses(s, l)
	if len(missed) != 1 || !in(missed[0].Operator()) || len(missed[0].ValuesUnsorted()) != 1 {
		return "", "", false
	}
	key = missed[0].Key()
	value, ok = l.Lookup(key)
	return key, value, ok
}

func in(o selection.Operator) bool {
	return o == selection.In || o == selection.Equals || o == selection.DoubleEquals
}
