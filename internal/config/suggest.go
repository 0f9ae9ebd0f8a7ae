// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// closest returns the known name that a mistyped one was probably meant to be,
// or "" when none is near. Of equally near names the first one wins, so the
// list should be sorted.
func closest(name string, known []string) string {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	best, limit := "", 1+len(name)/4
	for _, k := range known {
		if len(k) == 1 {
			continue
		}
		if d := distance(name, k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// distance is the number of letters to insert, remove or replace to turn a
// into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
