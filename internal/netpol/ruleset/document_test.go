// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// variant is a kind of node, for the document: the first in which a chain is says when
// it is there.
type variant struct {
	name string
	node program.Node
}

func variants() []variant {
	bridged := func(filter bool) program.Node {
		return program.Node{FilterHook: filter, Bridges: true, ClosedBridges: []string{"cni0"},
			PodBridges: []string{"cni0"}, Cut: true}
	}
	return []variant{{"`--datapath=nat`", program.Node{}}, {"`nat`, with a bridge", bridged(false)},
		{"`--datapath=filter`", program.Node{FilterHook: true}}, {"`filter`, with a bridge", bridged(true)}}
}

func tablesOf(n program.Node) []*nft.Table {
	list := []*nft.Table{ruleset.Render(&program.Program{}, n)}
	if t := ruleset.RenderBridge(n); t != nil {
		list = append(list, t)
	}
	return list
}

// docs/ruleset.md has the hooks and sets that are loaded; -update writes them.
func TestTheDocumentHasEveryHookAndSet(t *testing.T) {
	const file = "../../../docs/ruleset.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := section(t, string(data), "hooks", hookTable())
	ruleset.Golden(t, file, section(t, page, "sets", setTable()))
}

// section returns the page with what stands between two marks replaced.
func section(t *testing.T, page, name, text string) string {
	t.Helper()
	before, rest, ok := strings.Cut(page, "<!-- "+name+" -->\n")
	_, after, ends := strings.Cut(rest, "<!-- end -->\n")
	if !ok || !ends {
		t.Fatalf("the page has no section %s", name)
	}
	return before + "<!-- " + name + " -->\n" + text + "<!-- end -->\n" + after
}

func hookTable() string {
	var b strings.Builder
	b.WriteString("| table | chain | type | hook | priority | loaded with |\n|---|---|---|---|---|---|\n")
	seen := map[string]bool{}
	for _, v := range variants() {
		for _, table := range tablesOf(v.node) {
			for _, c := range table.Chains {
				if key := fmt.Sprint(table.TableID, c.Name); c.Base != nil && !seen[key] {
					seen[key] = true
					fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %d | %s |\n", table.TableID, c.Name, c.Base.Type, c.Base.Hook, c.Base.Priority, v.name)
				}
			}
		}
	}
	return b.String()
}

var aSet = regexp.MustCompile(`(?m)^\t(?:set|map) (\S+) \{\n\t\ttype ([^\n]+)\n(?:\t\t[^c\n][^\n]*\n)*(?:\t\tcomment "([^"]*)"\n)?`)

func setTable() string {
	var rows []string
	for _, v := range variants() {
		for _, table := range tablesOf(v.node) {
			for _, m := range aSet.FindAllStringSubmatch(table.String(), -1) {
				row := fmt.Sprintf("| `%s` | `%s` | `%s` | %s |\n", table.TableID, m[1], m[2], m[3])
				if !slices.Contains(rows, row) {
					rows = append(rows, row)
				}
			}
		}
	}
	slices.Sort(rows)
	return "| table | name | type | what is in it |\n|---|---|---|---|\n" + strings.Join(rows, "")
}

// The document says that there are no marks, and no verdict but accept and drop.
func TestNoMarksAndOnlyDrops(t *testing.T) {
	for _, v := range variants() {
		for _, table := range tablesOf(v.node) {
			if m := others.FindString(table.String()); m != "" {
				t.Errorf("%s: the table has %q", v.name, m)
			}
		}
	}
}

var others = regexp.MustCompile(`\b(mark|label|zone|notrack|reject|queue|[sd]nat to|masquerade|redirect|policy drop)\b`)
