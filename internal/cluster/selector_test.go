// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
)

// Requirements with many values are ours to match; upstream says how. What is
// said about exact labels must hold for whatever matches.
func TestSelectorsWithManyValuesMatchAsUpstreamSays(t *testing.T) {
	values := make([]string, manyValues+1)
	for i := range values {
		values[i] = fmt.Sprint("v", i)
	}
	list := "(" + strings.Join(values, ",") + ")"
	var sets []Labels
	for _, app := range []string{"none", "", "v0", "v1", "v16", "other"} {
		for _, tier := range []string{"none", "", "v0", "v16", "other"} {
			m := map[string]string{"app": app, "tier": tier}
			for k, v := range m {
				if v == "none" {
					delete(m, k)
				}
			}
			sets = append(sets, NewLabels(m))
		}
	}
	for _, text := range []string{"app in " + list, "app notin " + list, "app in (," + list[1:], "app notin (," +
		list[1:],
		"app in " + list + ",tier=v0", "app in " + list + ",!tier", "app in " + list + ",tier in " + list,
		"app notin " + list + ",tier in " + list, "app in " + list + ",tier notin " + list, "app notin (v0)",
		"app in (v0,v1)"} {
		upstream, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		s := NewSelector(upstream)
		for _, l := range sets {
			want := upstream.Matches(l)
			if got := s.Matches(l); got != want {
				t.Errorf("%s matches {%s}: %t, want %t", text, l, got, want)
			}
			if exact := s.Exact(); want && len(exact) > 0 && !slices.ContainsFunc(exact,
				func(e Label) bool { return slices.Contains(l, e) }) {
				t.Errorf("%s matches {%s}, which has none of %v", text, l, exact)
			}
		}
	}
	if (Selector{}).Matches(nil) || len((Selector{}).Exact()) > 0 {
		t.Error("a selector that was never set matches something")
	}
}

// What has to be asked about every pod costs more, and everything that is written
// costs something.
func TestWhatIsWrittenCostsEntries(t *testing.T) {
	selecting := func(text string) Selector {
		s, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return NewSelector(s)
	}
	exact, broad := selecting("app=x"), selecting("!app")
	if exact.Size() >= 10 || broad.Size() < 200 {
		t.Errorf("sizes are %d with an exact label, %d without", exact.Size(), broad.Size())
	}
	hole := netip.MustParsePrefix("10.0.0.0/24")
	size := func(e Peer) int {
		return (&Policy{Ingress: []Rule{{Peers: Peers{List: []Peer{e}}}}}).Size()
	}
	for _, tt := range []struct {
		name        string
		less, more  Peer
		atLeastMore int
	}{
		{"holes", Peer{Block: &IPBlock{}}, Peer{Block: &IPBlock{Except: []netip.Prefix{hole, hole}}}, 2},
		{"pods", Peer{Pods: exact}, Peer{Pods: broad}, 200},
		{"pods of namespaces", Peer{Namespaces: &exact, Pods: exact}, Peer{Namespaces: &exact, Pods: broad}, 200},
		{"namespaces", Peer{Namespaces: &exact, Pods: exact}, Peer{Namespaces: &broad, Pods: exact}, 200},
	} {
		if less, more := size(tt.less), size(tt.more); more < less+tt.atLeastMore {
			t.Errorf("%s: %d and %d entries", tt.name, less, more)
		}
	}
}

// A policy that is left out isolates what it isolated, or more; and who reads
// policies hears which of them have room again.
func TestAPolicyThatIsLeftOutIsolatesAndComesBack(t *testing.T) {
	var values []string
	for i := range smallSubject + 1 {
		values = append(values, fmt.Sprint("v", i))
	}
	parsed, err := labels.Parse("app in (" + strings.Join(values, ",") + ")")
	if err != nil {
		t.Fatal(err)
	}
	s := NewStore()
	large := ofSize("a", "large", MaxNamespaceEntries-100)
	large.Subject = NewSelector(parsed)
	s.Update(func(tx *Tx) { tx.SetPolicy(large); tx.SetPolicy(ofSize("a", "small", 200)) })
	for _, p := range s.Snapshot().Policies {
		if !p.IsolatesIngress || !p.Subject.Matches(NewLabels(map[string]string{"app": "v0"})) {
			t.Errorf("%v isolates nobody", p.Key)
		}
	}
	select {
	case <-s.Wants():
		t.Errorf("wanted is %v, without room", s.Wanted())
	default:
	}
	s.Update(func(tx *Tx) { tx.DeletePolicy(Key{"a", "small"}) })
	select {
	case <-s.Wants():
	default:
		t.Error("nobody hears that there is room again")
	}
	if got := fmt.Sprint(s.Wanted()); got != "[a/large]" {
		t.Errorf("wanted %s", got)
	}
}
