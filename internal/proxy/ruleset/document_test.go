// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"os"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// The page names every set, counter and fixed chain of the tables.
func TestThePageNamesEverything(t *testing.T) {
	page, err := os.ReadFile("../../../docs/design/services-datapath.md")
	if err != nil {
		t.Fatal(err)
	}
	table := ruleset.Render(&program.Program{Family: inet.IPv4}, ruleset.Settings{})
	names := table.Counters
	for _, s := range table.Sets {
		names = append(names, s.Name)
	}
	for _, c := range table.Chains {
		names = append(names, c.Name)
	}
	for _, name := range append(names, ruleset.TableName) {
		if !strings.Contains(string(page), name) {
			t.Errorf("the page does not name %s", name)
		}
	}
}
