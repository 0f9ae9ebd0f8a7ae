// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"maps"
	"reflect"
	"slices"
)

// podFields returns the names of the fields of Pod, sorted, so that a new
// field cannot be forgotten in Equal.
func podFields() []string {
	var list []string
	for f := range reflect.TypeFor[Pod]().Fields() {
		list = append(list, f.Name)
	}
	slices.Sort(list)
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
