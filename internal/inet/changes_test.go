// SPDX-License-Identifier: Apache-2.0

package inet

import (
	"cmp"
	"fmt"
	"testing"
)

type number int

func (n number) Compare(o number) int { return cmp.Compare(n, o) }

func TestEachChangeIsTheDifferenceOfTwoLists(t *testing.T) {
	for _, tt := range []struct {
		before, after []number
		want          string
	}{
		{nil, nil, ""},
		{nil, []number{1, 2}, "+1+2"},
		{[]number{1, 2}, nil, "-1-2"},
		{[]number{1, 2, 3}, []number{1, 2, 3}, ""},
		{[]number{1, 3, 5}, []number{2, 3, 4, 6}, "-1+2+4-5+6"},
	} {
		got := ""
		EachChange(tt.before, tt.after, func(n number) { got += fmt.Sprintf("-%d", n) },
			func(n number) { got += fmt.Sprintf("+%d", n) })
		if got != tt.want {
			t.Errorf("from %v to %v: %s, want %s", tt.before, tt.after, got, tt.want)
		}
	}
}
