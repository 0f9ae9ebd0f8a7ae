// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
)

// namespace is where the rendered manifests put everything.
const namespace = "podwall-system"

// notes is the one template that is no manifest.
const notes = "NOTES.txt"

// cleaner is the template that is applied by itself where helm is not used.
const cleaner = "uninstall.yaml"

// rendered is what a chart makes of values.
type rendered struct {
	Objects string // in the order in which helm makes them
	Hooks   string // what helm runs at some moment and does not keep
	Cleaner string // the one of them that cleans nodes
	Notes   string
}

// render does what helm template does: values are checked against the schema,
// and no cluster is asked.
func render(dir string, values map[string]any) (rendered, error) {
	ch, err := loader.LoadDir(dir)
	if err != nil {
		return rendered{}, fmt.Errorf("reading the chart: %w", err)
	}
	files, err := execute(ch, values)
	if err != nil {
		return rendered{}, err
	}
	var r rendered
	for name, text := range files {
		if path.Base(name) == notes {
			r.Notes = text
			delete(files, name)
		}
	}
	hooks, objects, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return rendered{}, fmt.Errorf("reading what was rendered: %w", err)
	}
	for _, o := range objects {
		r.Objects += document(o.Content)
	}
	for _, h := range hooks {
		r.Hooks += document(h.Manifest)
		if path.Base(h.Path) == cleaner {
			r.Cleaner = document(h.Manifest)
		}
	}
	return r, nil
}

func execute(ch *chartv2.Chart, values map[string]any) (map[string]string, error) {
	release := common.ReleaseOptions{Name: "podwall", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(ch, values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(ch, all)
	if err != nil {
		return nil, fmt.Errorf("rendering: %w", err)
	}
	return files, nil
}

func document(text string) string { return "---\n" + strings.TrimSpace(text) + "\n" }

// check does what helm lint --strict does, with these values.
func check(dir string, values map[string]any) error {
	var found []error
	for _, m := range lint.RunAll(dir, values, namespace).Messages {
		if m.Severity >= support.WarningSev {
			found = append(found, m)
		}
	}
	return errors.Join(found...)
}

// merge puts b over a; neither is changed.
func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	for _, k := range slices.Sorted(maps.Keys(b)) {
		below, both := out[k].(map[string]any)
		above, deeper := b[k].(map[string]any)
		if both && deeper {
			out[k] = merge(below, above)
			continue
		}
		out[k] = b[k]
	}
	return out
}
