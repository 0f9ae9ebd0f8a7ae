// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
)

// meant reports whether an item that the peer matches leaves somebody out: not every address, and
// not every pod of every namespace.
func (q question) meant(p *cluster.Policy, list cluster.Peers, peer party) bool {
	return slices.ContainsFunc(list.List, func(item cluster.Peer) bool {
		if q.peer(p, item, peer).step != matched {
			return false
		}
		if item.Block != nil {
			return item.Block.CIDR.Bits() > 0
		}
		return item.Namespaces == nil || item.Namespaces.Text() != "" || item.Pods.Text() != ""
	})
}

// unmet returns how many requirements of a selector, as its text lists them, labels do not meet.
func unmet(text string, l cluster.Labels) (n int) {
	depth, start := 0, 0
	for i, r := range text + "," {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			if !meets(text[start:i], l) {
				n++
			}
			start = i + 1
		}
	}
	return n
}

// meets reads one requirement: app=web, app!=web, app in (a,b), app notin (a,b), app or !app.
func meets(requirement string, l cluster.Labels) bool {
	key, values, isSet := strings.Cut(strings.TrimSuffix(requirement, ")"), " (")
	listed := func() bool { return slices.Contains(strings.Split(values, ","), l.Get(key)) }
	if isSet {
		var operator string
		key, operator, _ = strings.Cut(key, " ")
		return l.Has(key) && listed() == (operator == "in") || !l.Has(key) && operator == "notin"
	}
	if not, ok := strings.CutPrefix(requirement, "!"); ok {
		return !l.Has(not)
	}
	key, values, isSet = strings.Cut(requirement, "=")
	if not, ok := strings.CutSuffix(key, "!"); ok {
		key = not
		return !l.Has(key) || !listed()
	}
	return l.Has(key) && (!isSet || listed())
}
