// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/source/manifest"
)

// scenario is a golden ruleset: of which manifests, and which variant. The zero value
// of the node is the default one.
type scenario struct {
	manifests []string
	node      program.Node
}

func scenarios(t *testing.T) map[string]scenario {
	t.Helper()
	dualStack := []string{"testdata/dual-stack.yaml"}
	list := map[string]scenario{
		"dual-stack": {dualStack, program.Node{Open: []string{"eth0"}, Ingress: []string{"veth1"}, Egress: []string{"veth1"},
			Attached: []program.Attachment{{Link: "veth1", Addr: netip.MustParseAddr("10.244.1.5")}}}},
		"dual-stack-bridge":   {dualStack, program.Node{Bridges: true, ClosedBridges: []string{"cni0"}}},
		"dual-stack-filter":   {dualStack, program.Node{FilterHook: true, Bridges: true, ClosedBridges: []string{"cni0"}}},
		"dual-stack-open":     {dualStack, program.Node{OpenUnknown: true, Ingress: []string{"veth1"}, Egress: []string{"veth1"}}},
		"dual-stack-no-guard": {dualStack, program.Node{NoGuard: true}},
		"dual-stack-denied":   {dualStack, program.Node{DeniedGroup: 100}},
		"many-ports":          {manifests: []string{"testdata/many-ports.yaml"}},
		"many-policies":       {manifests: []string{"testdata/many-policies.yaml"}},
		"many-blocks":         {manifests: []string{"testdata/many-blocks.yaml"}},
		"nothing":             {},
	}
	seeds, err := filepath.Glob("../../../examples/seed/*.yaml")
	if err != nil || len(seeds) != 5 {
		t.Fatalf("%d examples, want 5 (%v)", len(seeds), err)
	}
	for _, file := range seeds {
		name := "seed-" + strings.TrimSuffix(filepath.Base(file), ".yaml")
		list[name] = scenario{manifests: []string{"testdata/seed-cluster.yaml", file}}
	}
	return list
}

func (s scenario) snapshot(t *testing.T) *cluster.Snapshot {
	t.Helper()
	text := ""
	for _, file := range s.manifests {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(data) + "\n---\n"
	}
	result, err := manifest.Parse("cluster.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Diagnostics) > 0 {
		t.Fatalf("the manifests are not clean: %v", result.Diagnostics)
	}
	return result.Snapshot()
}

// The rulesets are read by people: a change of them is reviewed as text.
// Rewrite with: make golden
func TestGoldenRulesets(t *testing.T) {
	known := map[string]bool{}
	for name, s := range scenarios(t) {
		file := filepath.Join("testdata", name+".nft")
		known[file] = true
		t.Run(name, func(t *testing.T) {
			ruleset.Golden(t, file, ruleset.Render(programOf(s.snapshot(t)), s.node).String())
		})
	}
	files, err := filepath.Glob("testdata/*.nft")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !known[file] {
			t.Errorf("%s belongs to no scenario", file)
		}
	}
}

// Every golden text is one that nft takes, and that nft lists again with the
// same chains and rules.
func TestGoldenRulesetsLoad(t *testing.T) {
	files, err := filepath.Glob("testdata/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden rulesets (%v)", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ns := nftrun.Namespace(t)
			nftrun.Run(t, ns, string(text), "-f", "-")
			listed := nftrun.Run(t, ns, "", "-n", "list", "table", "inet", ruleset.TableName)
			if want, got := outline(string(text)), outline(listed); !slices.Equal(want, got) {
				t.Errorf("outline (-written +listed):\n%s", cmp.Diff(want, got))
			}
		})
	}
}

// outline returns the names of what a listing defines, and the number of rules
// of each chain.
func outline(listing string) []string {
	var list []string
	chain := false
	rules := ""
	for line := range strings.Lines(listing) {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[2] == "{" && slices.Contains([]string{"counter", "set", "map", "chain"}, f[0]):
			list = append(list, f[0]+" "+f[1])
			chain, rules = f[0] == "chain", ""
		case len(f) == 1 && f[0] == "}":
			if chain {
				list[len(list)-1] += " rules " + rules
			}
			chain = false
		case chain && f[0] != "type":
			rules += "|"
		}
	}
	slices.Sort(list)
	return list
}
