// SPDX-License-Identifier: Apache-2.0

package nft

import "slices"

// WithMemory returns the table with other memories: the bridges that carried
// pods, which are not open then, and the settings to restore.
func WithMemory(t *Table, carried []string, restore []Entry) *Table {
	with := *t
	with.Sets = slices.Clone(t.Sets)
	for i, s := range with.Sets {
		switch s.Name {
		case setCarried:
			s = &Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: interfaces(carried)}
		case setRestore:
			s = &Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: restore}
		case setOpenLinks:
			open := slices.DeleteFunc(slices.Clone(s.Entries), func(e Entry) bool { return slices.Contains(carried, e.Key.Iface) })
			s = &Set{Name: s.Name, Key: s.Key, Comment: s.Comment, Entries: open}
		}
		with.Sets[i] = s
	}
	return &with
}
