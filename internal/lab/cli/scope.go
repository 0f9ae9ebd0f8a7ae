// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
)

// scopeFlags say which part of the cluster is tried and shown. All of it is there.
type scopeFlags struct{ namespaces, from, to []string }

func (s *scopeFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVarP(&s.namespaces, "namespace", "n", nil, "try pods of these `NAMESPACES` only, and hosts outside")
	f.StringArrayVar(&s.from, "from", nil, "try sources that `REF` names only; may be given again")
	f.StringArrayVar(&s.to, "to", nil, "try destinations that `REF` names only; may be given again")
}

// refForms names the forms of a REF, for messages.
const refForms = "NAMESPACE, NAMESPACE/POD, NAMESPACE/WORKLOAD, a label as in app=web or NAMESPACE/app=web, " +
	"node:NAME, the address of a host, or outside"

// scope is what is asked: from the ends of one list of indexes to those of the other.
type scope struct{ from, to []bool }

// all is the scope of all ends.
func all(ends []end) scope {
	each := slices.Repeat([]bool{true}, len(ends))
	return scope{each, each}
}

func (s scope) asks(src, dst int) bool { return s.from[src] && s.to[dst] }

// narrow returns the ends that the flags leave over, and the scope of them.
func (s *scopeFlags) narrow(ends []end) ([]end, scope, error) {
	if err := s.knownNamespaces(ends); err != nil {
		return nil, scope{}, err
	}
	ends = slices.DeleteFunc(slices.Clone(ends), func(e end) bool {
		return len(s.namespaces) > 0 && e.pod != nil && !slices.Contains(s.namespaces, e.namespace())
	})
	from, err := matching(ends, "--from", s.from)
	if err != nil {
		return nil, scope{}, err
	}
	to, err := matching(ends, "--to", s.to)
	if err != nil {
		return nil, scope{}, err
	}
	var left []end
	var narrowed scope
	for i, e := range ends {
		if from[i] || to[i] {
			left = append(left, e)
			narrowed.from, narrowed.to = append(narrowed.from, from[i]), append(narrowed.to, to[i])
		}
	}
	for i := range left {
		left[i].short = fmt.Sprint(i + 1)
	}
	return left, narrowed, nil
}

func (s *scopeFlags) knownNamespaces(ends []end) error {
	for _, name := range s.namespaces {
		if !slices.ContainsFunc(ends, func(e end) bool { return e.pod != nil && e.namespace() == name }) {
			return fmt.Errorf("--namespace %q: no pod that can be tried is in it; there are %s",
				name, strings.Join(namespacesOf(ends), ", "))
		}
	}
	return nil
}

func namespacesOf(ends []end) []string {
	var list []string
	for _, e := range ends {
		if e.pod != nil {
			list = append(list, e.namespace())
		}
	}
	if len(list) == 0 {
		return []string{"none"}
	}
	return sortedUnique(list)
}

// matching returns which ends the references name; all if there are none.
func matching(ends []end, flag string, refs []string) ([]bool, error) {
	if len(refs) == 0 {
		return all(ends).from, nil
	}
	found := make([]bool, len(ends))
	for _, text := range refs {
		matches, err := parseRef(text, ends)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, text, err)
		}
		some := false
		for i, e := range ends {
			if matches(e) {
				found[i], some = true, true
			}
		}
		if !some {
			return nil, fmt.Errorf("%s %q names no pod and no host that can be tried; write %s", flag, text, refForms)
		}
	}
	return found, nil
}

// parseRef reads a reference to ends.
func parseRef(text string, ends []end) (func(end) bool, error) {
	namespace, name, inside := strings.Cut(text, "/")
	node, isNode := strings.CutPrefix(text, "node:")
	switch {
	case text == "":
		return nil, errors.New("it is empty; write " + refForms)
	case isNode:
		return func(e end) bool { return e.pod != nil && e.pod.Node == node }, nil
	case strings.Contains(text, "="):
		return parseLabels(text)
	case inside && name != "":
		return func(e end) bool {
			return e.pod != nil && e.namespace() == namespace && (e.pod.Key.Name == name || e.workload == name)
		}, nil
	}
	return func(e end) bool {
		switch {
		case e.pod != nil:
			return e.namespace() == namespace
		case text == "outside":
			return !slices.Contains(namespacesOf(ends), text)
		}
		return e.name == text
	}, nil
}

// parseLabels reads NAMESPACE/LABELS, or LABELS alone. A label's own key may have a
// slash; it then stands behind the namespace's, or its first part has a dot.
func parseLabels(text string) (func(end) bool, error) {
	namespace, rest := "", text
	if first, behind, found := strings.Cut(text, "/"); found && !strings.ContainsAny(first, ".=") {
		namespace, rest = first, behind
	}
	selector, err := labels.Parse(rest)
	if err != nil {
		return nil, fmt.Errorf("it is no label selector: %w", err)
	}
	return func(e end) bool {
		return e.pod != nil && (namespace == "" || e.namespace() == namespace) && selector.Matches(e.pod.Labels)
	}, nil
}
