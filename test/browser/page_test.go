// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
)

// The five examples of the demo are shown as their comments say.
func TestThePageShowsTheFiveExamples(t *testing.T) {
	const d, a, b, in, four, six = "namespace:default", "namespace:nsa", "namespace:nsb", "host:14.215.", "host:203.", "host:2001:"
	pair := func(from, to string) string { return from + " > " + to }
	for _, tt := range []struct {
		name, port string
		denied     []string
	}{
		{"1-same-namespace.yaml", "tcp:80", []string{pair(d, a), pair(b, a), pair(four, a), pair(six, a)}},
		{"2-deny-ingress.yaml", "tcp:80", []string{pair(d, a), pair(a, a), pair(b, a), pair(four, a), pair(six, a)}},
		{"3-from-namespace.yaml", "tcp:6379", []string{pair(d, a), pair(a, a), pair(four, a), pair(six, a)}},
		{"4-egress-to-cidr.yaml", "tcp:5978", []string{pair(a, d), pair(a, a), pair(a, b), pair(a, four), pair(a, six)}},
		{"5-ingress-from-cidr.yaml", "tcp:80", []string{pair(d, d), pair(a, d), pair(b, d), pair(four, d), pair(six, d)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := open(t, serve(t, example(t, tt.name)...))
			p.await(`document.querySelectorAll(".node").length >= 5`)
			if port := eval[string](p, `document.getElementById("port").value`); port != tt.port {
				t.Errorf("the port is %s, want %s", port, tt.port)
			}
			allowed := short(p.edges())
			p.click(`input[value="denied"]`)
			denied := short(p.edges())
			slices.Sort(tt.denied)
			if diff := cmp.Diff(tt.denied, denied); diff != "" {
				t.Errorf("denied (-want +got):\n%s", diff)
			}
			hasBlock := strings.Contains(tt.name, "cidr")
			if hasBlock && !slices.Contains(allowed, pair(in, d)) || slices.Contains(denied, pair(in, d)) {
				t.Errorf("the block of the policy: allowed %q, denied %q", allowed, denied)
			}
			p.click(`input[value="all"]`)
			if all := p.edges(); len(all) != len(allowed)+len(denied) {
				t.Errorf("%d edges, want %d", len(all), len(allowed)+len(denied))
			}
		})
	}
}

// short leaves of the addresses of hosts what tells them apart.
func short(edges []string) []string {
	list := []string{}
	for _, e := range edges {
		for _, prefix := range []string{"host:14.215.", "host:203.", "host:2001:"} {
			if i := strings.Index(e, prefix); i >= 0 {
				rest := e[i+len(prefix):]
				end := strings.IndexByte(rest+" ", ' ')
				e = e[:i+len(prefix)] + rest[end:]
			}
		}
		list = append(list, e)
	}
	slices.Sort(list)
	return list
}

// A click on an edge explains it, and so do clicks on two nodes that none joins, in the words of
// kubectl podwall explain.
func TestAnEdgeAndAMissingOneAreExplained(t *testing.T) {
	files := example(t, "3-from-namespace.yaml")
	p := open(t, serve(t, files...))
	for _, tt := range []struct {
		click    func()
		verdict  string
		from, to string
	}{
		{func() { p.clickEdge("namespace:nsb", "namespace:nsa") }, "allowed", "nsb/b1", "nsa/a1:6379"},
		{func() { p.clickNode("namespace:default"); p.clickNode("namespace:nsa") }, "denied", "default/d1", "nsa/a1:6379"},
		{func() { p.clickNode("namespace:nsa"); p.clickNode("namespace:nsa") }, "denied", "nsa/a1", "nsa/a2:6379"},
	} {
		p.await(`document.querySelectorAll(".node").length >= 5`)
		tt.click()
		want := answered(t, append([]string{"explain", tt.from, tt.to}, files...)...)
		p.awaitText("#answer pre", strings.SplitN(want, ":", 2)[0])
		if got := words(p.text("#answer pre")); got != want {
			t.Errorf("%s to %s:\n%s\nwant\n%s", tt.from, tt.to, got, want)
		}
		if got := p.text("#answer .verdict"); got != tt.verdict {
			t.Errorf("%s to %s is %s, want %s", tt.from, tt.to, got, tt.verdict)
		}
	}
	// An edge of namespaces has the pairs of its workloads.
	if got := p.text("#answer summary"); got != "6 pairs of workloads" {
		t.Errorf("the pairs are %q", got)
	}
	p.click(`#answer summary`)
	p.click(`#answer tbody tr:last-child button`)
	want := answered(t, append([]string{"explain", "nsa/a3", "nsa/a2:6379"}, files...)...)
	p.awaitText("#answer pre", "nsa/a3 to nsa/a2")
	if got := words(p.text("#answer pre")); got != want {
		t.Errorf("a pair:\n%s\nwant\n%s", got, want)
	}
	// So does a question that is written.
	p.do(typed("#from", "outside"), typed("#to", "nsa/a1:53/udp"))
	p.press(kb.Enter)
	p.awaitText("#answer pre", "to nsa/a1 udp:53: denied")
	p.do(typed("#to", "nsa/a9:53"))
	p.press(kb.Enter)
	p.awaitText("#answer", "no pod or workload nsa/a9; there is")
	p.forgive("status of 422")
}

// Search opens what is found.
func TestSearchFindsPodsAndPolicies(t *testing.T) {
	p := open(t, serve(t, example(t, "1-same-namespace.yaml")...))
	p.await(`document.querySelectorAll(".node").length >= 5`)
	p.press("/")
	p.await(`document.activeElement.id === "search"`)
	p.press("A", "2")
	p.awaitText("#found", "workload nsa/a2")
	p.press(kb.Enter)
	p.await(`document.querySelector('.node.source')?.dataset.id === "workload:nsa/a2"`)
	p.awaitText("#answer pre", "nsa/a2 on node1")
	if nodes := eval[int](p, `document.querySelectorAll(".node.workload").length`); nodes != 3 {
		t.Errorf("%d workloads are shown, want those of nsa", nodes)
	}
	p.press("/", "n", "p")
	p.awaitText("#found", "policy nsa/npa")
	p.press(kb.Enter)
	p.awaitText("#policylist", "isolates ingress of 3 pods")
	p.press(kb.Escape)
	p.do(typed("#search", "nothing like that"))
	p.awaitText("#found", "nothing has this in its name")
}

// All can be done with keys.
func TestKeysAreEnough(t *testing.T) {
	p := open(t, serve(t, example(t, "2-deny-ingress.yaml")...))
	p.await(`document.querySelectorAll(".node").length >= 5`)
	p.press("g")
	p.await(`document.activeElement.dataset.id === "namespace:default"`)
	p.press(kb.Enter, kb.ArrowRight, kb.Enter)
	p.awaitText("#answer pre", "default/d1 to nsa/a1 tcp:80: denied")
	p.press("x")
	p.awaitText("#answer pre", "nsa/a1 to default/d1 tcp:80: allowed")
	p.press("o")
	p.await(`document.activeElement.dataset.id === "workload:nsa/a1"`)
	p.press(kb.Enter)
	p.awaitText("#answer pre", "ingress: isolated, only this is allowed")
	p.press(kb.Escape)
	p.await(`document.querySelectorAll(".source").length === 0`)
	p.press(kb.End)
	p.await(`document.activeElement.dataset.id.startsWith("host:")`)
	for i, name := range []string{"explain", "flows", "policies", "help"} {
		p.press(fmt.Sprint(i + 1))
		p.await(fmt.Sprintf(`!document.getElementById(%q).hidden && document.activeElement.id === "tab-%s"`, name, name))
	}
	// Tab reaches everything that can be used, in the order of the page, and shows where it is.
	p.press("1", "g", kb.Escape, kb.Enter)
	p.awaitText("#peers", "other end")
	p.do(typed("#search", ""))
	seen := map[string]bool{}
	for range 60 {
		p.press(kb.Tab)
		seen[eval[string](p, `document.activeElement.id || document.activeElement.textContent.trim() || "none"`)] = true
		if !eval[bool](p, `document.activeElement === document.body || document.activeElement.matches(":focus-visible")`) {
			t.Error("the focus is not visible")
		}
	}
	for _, want := range []string{"port", "otherport", "match", "reload", "tab-explain", "from", "to",
		"Clear the selection", "denied", "allowed"} {
		if !seen[want] {
			t.Errorf("Tab does not reach %s", want)
		}
	}
	p.forgive("status of 422") // flows of files
}
