// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// switches are values that all.values.yaml leaves at their default, since others
// have no effect with another one, or are refused beside it.
func switches() map[string]any {
	return map[string]any{
		"agent.enableIPv6":      false,
		"metrics.service":       false,
		"serviceAccount.create": false,
		"rbac.create":           false,
		"serviceProxy.backend":  "ipvs",
		"updateStrategy.type":   "OnDelete",
	}
}

// lookup finds a value by its path.
func lookup(values map[string]any, path string) (any, bool) {
	key, below, deeper := strings.Cut(path, ".")
	v, ok := values[key]
	if !ok || !deeper {
		return v, ok
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	return lookup(m, below)
}

// A value that changes nothing is a promise that nobody keeps.
func TestEveryValueChangesWhatIsRendered(t *testing.T) {
	list, err := documented(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defaults, all := mustRead(t, chartDir+"/values.yaml"), mustRead(t, allFile)
	whole := mustRender(t, all)
	for _, v := range list {
		if other, ok := switches()[v.path]; ok {
			base := merge(at("metrics.enabled", true), merge(at("serviceProxy.enabled", true), at("api.host", "192.0.2.10")))
			if mustRender(t, merge(base, at(v.path, other))) == mustRender(t, base) {
				t.Errorf("%s: %v renders what the default renders", v.path, other)
			}
			continue
		}
		fallback, known := lookup(defaults, v.path)
		set, ok := lookup(all, v.path)
		if !known || !ok || reflect.DeepEqual(set, fallback) {
			t.Errorf("%s: %s does not set it to something else than its default", v.path, allFile)
			continue
		}
		if back := without(t, all, v.path, fallback); back == whole {
			t.Errorf("%s: its default renders what %v renders", v.path, set)
		}
	}
}

// without renders all values with one back at its default. A default may be
// refused beside the others; then it had an effect.
func without(t *testing.T, all map[string]any, path string, fallback any) rendered {
	t.Helper()
	values := replace(all, path, fallback)
	r, err := render(chartDir, values)
	if err != nil {
		return rendered{Notes: err.Error()}
	}
	return r
}

// replace sets a value and merges nothing into it.
func replace(values map[string]any, path string, v any) map[string]any {
	key, below, deeper := strings.Cut(path, ".")
	out := merge(values, nil)
	if out[key] = v; deeper {
		out[key] = replace(values[key].(map[string]any), below, v)
	}
	return out
}

func TestUnknownValuesAreRefusedByName(t *testing.T) {
	var schema map[string]any
	data, err := os.ReadFile(chartDir + "/values.schema.json")
	if err == nil {
		err = json.Unmarshal(data, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	defaults := mustRead(t, chartDir+"/values.yaml")
	paths := []string{"surprise", "affinity.nodeAffinity.surprise", "tolerations.surprise"}
	for key, v := range defaults {
		m, ok := v.(map[string]any)
		if ok && !open(schema, key) {
			paths = append(paths, key+".surprise")
			for below, v := range m {
				if _, ok := v.(map[string]any); ok && key != "serviceAccount" {
					paths = append(paths, key+"."+below+".surprise")
				}
			}
		}
	}
	if len(paths) < 15 {
		t.Fatalf("only %d places for an unknown value: %v", len(paths), paths)
	}
	for _, path := range paths {
		values := at(path, "x")
		if path == "tolerations.surprise" {
			values = map[string]any{"tolerations": []any{map[string]any{"surprise": "x"}}}
		}
		if _, err := render(chartDir, values); err == nil || !strings.Contains(err.Error(), "surprise") {
			t.Errorf("%s: got %v, want an error that names it", path, err)
		}
		if err := check(chartDir, values); err == nil {
			t.Errorf("%s: helm lint says nothing", path)
		}
	}
}

// open reports whether a value takes any key: labels, annotations, selectors.
func open(schema map[string]any, key string) bool {
	v, _ := lookup(schema, "properties."+key+".$ref")
	return v == "#/definitions/stringMap"
}

// Every object of the schema says what it knows, apart from maps of strings, and
// from what helm gives to parts of other charts.
func TestTheSchemaClosesEveryObject(t *testing.T) {
	var schema any
	data, err := os.ReadFile(chartDir + "/values.schema.json")
	if err == nil {
		err = json.Unmarshal(data, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(path, x)
			}
		case map[string]any:
			if v["type"] == "object" && v["additionalProperties"] != false && path != "/definitions/stringMap" && path != "/properties/global" {
				t.Errorf("%s lets unknown values in", path)
			}
			for k, x := range v {
				walk(path+"/"+k, x)
			}
		}
	}
	walk("", schema)
}

func TestBadValuesAreRefused(t *testing.T) {
	for path, v := range map[string]any{
		"agent.cacheSyncTimeout":         "60",
		"agent.datapath":                 "iptables",
		"agent.unknownPods":              "",
		"agent.enableIPv4":               "yes",
		"agent.resources.limits.memory":  "much",
		"image.digest":                   "sha256:1",
		"image.registry":                 "registry.example/",
		"image.tag":                      "a b",
		"health.port":                    0,
		"metrics.path":                   "figures",
		"gate.onTimeout":                 "open",
		"uninstall.timeout":              "soon",
		"gate.cniConfDir":                "etc/cni",
		"updateStrategy.maxUnavailable":  0,
		"updateStrategy.type":            "Recreate",
		"brNetfilter.load":               true, // without an image
		"metrics.serviceMonitor.enabled": true, // without metrics
		"serviceProxy.enabled":           true, // without api.host
		"serviceProxy.clusterIPRange":    []any{"10.96.0.1"},
		"extraArgs":                      []any{"v=2"},
	} {
		if _, err := render(chartDir, at(path, v)); err == nil || !strings.Contains(err.Error(), path[strings.LastIndex(path, ".")+1:]) {
			t.Errorf("%s=%v: got %v, want an error that names it", path, v, err)
		}
	}
}
