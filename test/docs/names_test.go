// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/kubectl"
	"github.com/podwall/podwall/internal/lab/cli"
	"github.com/podwall/podwall/internal/observe"
)

// flagsOfOthers are those that the pages name.
func flagsOfOthers() []string {
	return []string{
		"--set",                    // helm
		"--runtime-endpoint",       // crictl
		"--disable-network-policy", // k3s
		"--disable-kube-proxy",
	}
}

// allFlags returns the flags that a page may name.
func allFlags(t *testing.T) []string {
	t.Helper()
	var text bytes.Buffer
	config.Usage(&text)
	if err := config.Reference(&text); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"demo", "run", "check", "ruleset", "bench packets", "bench web", "bench control"} {
		cli.Run(t.Context(), "test", append(strings.Fields(command), "--help"), cli.Streams{Out: &text, Err: &text})
	}
	for _, command := range []string{"explain", "can", "matrix", "diff", "lint", "rules", "flows", "audit", "generate", "ui"} {
		kubectl.Run(t.Context(), "test", []string{command, "--help"}, kubectl.Streams{Out: &text, Err: &text})
	}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"install", "uninstall", "status", "list", "nri", "serve", "connect"} {
		out, err := exec.Command(filepath.Join(dir, "podwall-gate"), command, "--help").CombinedOutput()
		if err != nil {
			t.Fatalf("podwall-gate %s --help: %v\n%s", command, err, out)
		}
		text.Write(out)
	}
	return append(regexp.MustCompile(`--[a-z0-9-]+`).FindAllString(text.String(), -1), flagsOfOthers()...)
}

var metric = regexp.MustCompile(`\bpodwall_[a-z0-9_]*[a-z0-9]\b`)

// Metrics that a page or a manifest names exist: docs/metrics.md, which a test of package
// observe writes, has them all.
func TestMetricsThatAreNamedExist(t *testing.T) {
	known := metricNames(t)
	texts := pages(t)
	for _, pattern := range []string{"deploy/*.yaml", "deploy/*/*.yaml", "deploy/chart/podwall/templates/*"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			name := strings.TrimPrefix(filepath.ToSlash(f), root+"/")
			texts = append(texts, page{name, read(t, name)})
		}
	}
	for _, p := range texts {
		for _, name := range unknownMetrics(p.text, known) {
			t.Errorf("%s names the metric %s, which does not exist", p.name, name)
		}
	}
}

func metricNames(t *testing.T) (known []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?m)^\\| `(podwall_\\w+)`").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		known = append(known, m[1])
	}
	if len(known) < 20 {
		t.Fatalf("only %d metrics in docs/metrics.md", len(known))
	}
	return known
}

func unknownMetrics(text string, known []string) (list []string) {
	for _, name := range metric.FindAllString(text, -1) {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !slices.Contains(known, name) && !slices.Contains(known, base) {
			list = append(list, name)
		}
	}
	return list
}

var statusKey = regexp.MustCompile("`([a-zA-Z]+)` (?:in|of) `/statusz`")

// What is said to be in the status is there, as a key or as a line of its text.
func TestKeysOfTheStatusExist(t *testing.T) {
	known := statusKeys(t)
	seen := 0
	for _, p := range pages(t) {
		for _, m := range statusKey.FindAllStringSubmatch(p.text, -1) {
			if seen++; !slices.Contains(known, m[1]) {
				t.Errorf("%s: there is no %s in /statusz", p.name, m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no page names a key of the status: what does the pattern look for?")
	}
}

// statusKeys returns the names of the fields in JSON, of all depths, and those of the rows
// of the text.
func statusKeys(t *testing.T) []string {
	t.Helper()
	list := jsonNames(reflect.TypeFor[observe.Status]())
	for _, m := range regexp.MustCompile(`row\("(\w+)"`).FindAllStringSubmatch(read(t, "internal/observe/text.go"), -1) {
		list = append(list, m[1])
	}
	return list
}

func jsonNames(typ reflect.Type) (list []string) {
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, typ.Kind()) {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" || f.Anonymous {
			list = append(append(list, name), jsonNames(f.Type)...)
		}
	}
	return list
}
