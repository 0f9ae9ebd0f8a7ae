// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"k8s.io/apimachinery/pkg/labels"
)

func TestAnAbsentLabelIsNotAnEmptyOne(t *testing.T) {
	l := NewLabels(map[string]string{"tier": "", "app": "x", "team": "a"})
	tests := []struct {
		key, value string
		ok         bool
	}{
		{"app", "x", true},
		{"team", "a", true},
		{"tier", "", true},
		{"absent", "", false},
		{"", "", false},
		{"zone", "", false},
	}
	for _, tt := range tests {
		value, ok := l.Lookup(tt.key)
		if value != tt.value || ok != tt.ok || l.Has(tt.key) != tt.ok || l.Get(tt.key) != tt.value {
			t.Errorf("%q is %q, %t; has %t, get %q", tt.key, value, ok, l.Has(tt.key), l.Get(tt.key))
		}
	}
}

// Each operator, asked for a label with a value, an empty one and an absent one.
func TestSelectorsSeeAbsentAndEmptyLabels(t *testing.T) {
	tests := []struct {
		selector             string
		value, empty, absent bool
	}{
		{"app", true, true, false},
		{"!app", false, false, true},
		{"app=x", true, false, false},
		{"app=", false, true, false},
		{"app in (x,y)", true, false, false},
		{"app notin (x)", false, true, true},
		{"app!=", true, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.selector, func(t *testing.T) {
			parsed, err := labels.Parse(tt.selector)
			if err != nil {
				t.Fatal(err)
			}
			s := NewSelector(parsed)
			for text, want := range map[string]bool{"x": tt.value, "": tt.empty} {
				if got := s.Matches(NewLabels(map[string]string{"app": text})); got != want {
					t.Errorf("app=%q: %t", text, got)
				}
			}
			if got := s.Matches(NewLabels(map[string]string{"other": "x"})); got != tt.absent {
				t.Errorf("without app: %t", got)
			}
		})
	}
}
