// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestALimitIsAProblemWhenFourFifthsAreUsed(t *testing.T) {
	tests := []struct {
		name      string
		used, max int
		before    bool
		want      string // part of the text, empty for no problem
	}{
		{"nothing is used", 0, 100, false, ""},
		{"just below", 79_999, 100_000, false, ""},
		{"four fifths", 80, 100, false, "80 of 100, 80 %"},
		{"nearly full is not said to be full", 99_999, 100_000, false, "99999 of 100000, 99 %"},
		{"full", 100, 100, false, "100 of 100, 100 %"},
		{"more than full", 250, 100, false, "250 of 100, 250 %"},
		{"it swings around the bound", 75, 100, true, "75 of 100, 75 %"},
		{"it has gone down", 74, 100, true, ""},
		{"it swings, and was none before", 79, 100, false, ""},
		{"there is no bound", 1 << 30, 0, false, ""},
		{"there is no bound any more", 1 << 30, 0, true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, ok := Use{Limit: LimitPrefixes, Object: "prefixes in set blocks", Used: tt.used, Max: tt.max}.Problem(tt.before)
			if ok != (tt.want != "") || !strings.Contains(p.Text, tt.want) {
				t.Errorf("problem = %v %+v, want %q", ok, p, tt.want)
			}
			if ok && (p.Subject != "limit prefixes" || p.Blocking || !strings.HasPrefix(p.Text, "prefixes in set blocks: ")) {
				t.Errorf("problem = %+v, want one of the limit that names the object and does not block", p)
			}
		})
	}
}

func TestEveryLimitHasAConsequenceAndACure(t *testing.T) {
	if !slices.IsSorted(limits()) {
		t.Errorf("limits = %v, want them sorted", limits())
	}
	for _, l := range limits() {
		if consequence, cure := Limit(l).advice(); consequence == "" || cure == "" {
			t.Errorf("limit %s has the consequence %q and the cure %q", l, consequence, cure)
		}
	}
}

func TestTheConnectionTableIsInTheStatusAndInTheMetrics(t *testing.T) {
	o := enforcing()
	if s := o.Status(); s.Connections != nil {
		t.Errorf("connections = %v before anybody counted", s.Connections)
	}
	o.SetConnections(Connections{Entries: 90, Limit: 100})
	o.SetUse(Use{Limit: LimitConnections, Used: 90, Max: 100})
	_, body := ask(t, o, "/metrics")
	for _, want := range []string{"podwall_conntrack_entries 90\n", "podwall_conntrack_limit 100\n",
		`podwall_limit_used_ratio{limit="conntrack"} 0.9` + "\n", `podwall_limit_used_ratio{limit="rules"} 0` + "\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %q:\n%s", want, body)
		}
	}
	_, body = ask(t, o, "/statusz")
	var got Status
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Connections == nil || *got.Connections != (Connections{90, 100}) {
		t.Errorf("connections in the status = %v, %v", got.Connections, err)
	}
	if _, body := ask(t, o, "/statusz?format=text"); !strings.Contains(body, "tracked     90 connections, of 100 that the kernel can\n") {
		t.Errorf("the page lacks the connections:\n%s", body)
	}
}
