// SPDX-License-Identifier: Apache-2.0

package listwatch

import (
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// unknown returns a parameter that cannot be obeyed. Of selectors that is every one but those which all
// objects of the kind match.
func (s *Server) unknown(k *kind, q url.Values) string {
	for name := range q {
		all := name == "labelSelector" && k.spared(q.Get(name)) ||
			name == "fieldSelector" && (s.allNamed(k, q.Get(name)) || k.name == "Service" && q.Get(name) == notHeadless)
		if !slices.Contains(known[:], name) && !all {
			return name
		}
	}
	return ""
}

// notHeadless is how kube-proxy asks to be spared Services without an address. None are stored.
const notHeadless = "spec.clusterIP!=None"

// spared reports whether a selector only leaves out labels that no object of the kind has.
func (k *kind) spared(text string) bool {
	selector, err := labels.Parse(text)
	if err != nil {
		return false
	}
	list, _ := selector.Requirements()
	return len(list) > 0 && !slices.ContainsFunc(list, func(r labels.Requirement) bool {
		return r.Operator() != selection.DoesNotExist || !slices.Contains(k.without, r.Key())
	})
}

// allNamed reports whether every object of a kind that has no namespaces has the name that a selector asks for.
func (s *Server) allNamed(k *kind, selector string) bool {
	name, ok := strings.CutPrefix(selector, "metadata.name=")
	objects, _ := s.all(k)
	return ok && !slices.ContainsFunc(objects, func(o stored) bool { return o.key != "/"+name })
}
