// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the rendered files anew")

const (
	chartDir = "../../deploy/chart/podwall"
	allFile  = "testdata/all.values.yaml"
)

func mustRender(t *testing.T, values map[string]any) rendered {
	t.Helper()
	r, err := render(chartDir, values)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRead(t *testing.T, file string) map[string]any {
	t.Helper()
	values, err := readValues(file)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// at returns values with one of them set.
func at(path string, v any) map[string]any {
	keys := strings.Split(path, ".")
	for i := len(keys) - 1; i >= 0; i-- {
		v = map[string]any{keys[i]: v}
	}
	return v.(map[string]any)
}

func TestHelmLintFindsNothing(t *testing.T) {
	for name, values := range map[string]map[string]any{"defaults": {}, "all": mustRead(t, allFile)} {
		if err := check(chartDir, values); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The files that people apply are those that the chart makes. `make deploy`
// writes them.
func TestTheRenderedFilesAreCurrent(t *testing.T) {
	const defaults = "../../deploy/values.yaml"
	objects := func(r rendered) string { return r.Objects }
	hooks := func(r rendered) string { return r.Hooks }
	for file, from := range map[string]struct {
		values string
		part   func(rendered) string
	}{
		"../../deploy/podwall.yaml":      {defaults, objects},
		"../../deploy/uninstall.yaml":    {defaults, func(r rendered) string { return r.Cleaner }},
		"../../deploy/tke/podwall.yaml":  {"../../deploy/tke/values.yaml", objects},
		"testdata/hooks.golden.yaml":     {defaults, hooks},
		"testdata/all.golden.yaml":       {allFile, objects},
		"testdata/all.hooks.golden.yaml": {allFile, hooks},
		// Its containers run in test/privilege.
		"../../test/privilege/testdata/gate.yaml": {"../../test/privilege/testdata/gate.values.yaml", objects},
	} {
		values := mustRead(t, from.values)
		if _, said := values["uninstall"]; !said && (file == "../../deploy/uninstall.yaml" || file == "testdata/hooks.golden.yaml") {
			values["uninstall"] = map[string]any{"enabled": true}
		}
		r := mustRender(t, values)
		compare(t, file, header(from.values)+from.part(r))
	}
}

// The file of kube-router is no part of the chart, and names its image.
func TestTheImageOfTheSeedsFileIsCurrent(t *testing.T) {
	const file = "../../deploy/tke/kube-router-firewall-daemonset.yaml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	image := agents(t, map[string]any{}).Spec.Template.Spec.Containers[0].Image
	compare(t, file, regexp.MustCompile(`image: podwall/podwall:\S+`).ReplaceAllString(string(text), "image: "+image))
}

// header says where a rendered file comes from.
func header(values string) string {
	return "# Made by `make deploy` from deploy/chart/podwall with " + strings.TrimPrefix(values, "../../") + ". Change those.\n"
}

func compare(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) == want {
		return
	}
	is, should := strings.Split(string(have), "\n"), strings.Split(want, "\n")
	for i := range max(len(is), len(should)) {
		if i >= len(is) || i >= len(should) || is[i] != should[i] {
			t.Errorf("%s is old from line %d on; run make deploy", file, i+1)
			return
		}
	}
}

// The README's table is values.yaml, read by a program.
func TestTheTableOfValuesIsCurrent(t *testing.T) {
	const begin, end = "<!-- values: made by make deploy -->\n", "<!-- end of values -->\n"
	table, err := valuesTable(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	file := chartDir + "/README.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no place for the table", file)
	}
	compare(t, file, before+begin+table+end+after)
}
