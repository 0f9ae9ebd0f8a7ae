// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// merge joins files in the given order. Of objects with the same key the last one is used.
func merge(files []*file) *Result {
	r := &Result{}
	for _, f := range files {
		r.Diagnostics = append(append(r.Diagnostics, f.ignored...), f.unserved...)
		r.others += f.others
	}
	r.Namespaces = collect(r, "Namespace", files, func(f *file) []placed[*cluster.Namespace] { return f.namespaces })
	r.Pods = collect(r, "Pod", files, func(f *file) []placed[*cluster.Pod] { return f.pods })
	r.Policies = collect(r, "NetworkPolicy", files, func(f *file) []placed[*cluster.Policy] { return f.policies })
	r.Services = collect(r, convert.KindService, files,
		func(f *file) []placed[*corev1.Service] { return f.services })
	r.Slices = collect(r, convert.KindSlice, files,
		func(f *file) []placed[*discoveryv1.EndpointSlice] { return f.slices })
	r.Nodes = collect(r, "Node", files, func(f *file) []placed[*corev1.Node] { return f.nodes })
	r.addMentionedNamespaces()
	r.noteUnknown(files)
	return r
}

// noteUnknown collects what package convert cannot see of Services, slices and pods.
func (r *Result) noteUnknown(files []*file) {
	r.unknown = map[string]map[cluster.Key]misspelt{convert.KindService: {}, convert.KindSlice: {}}
	r.unready, r.unserved = map[cluster.Key]bool{}, map[cluster.Diagnostic]bool{}
	for _, f := range files {
		for _, d := range f.unserved {
			r.unserved[d] = true
		}
		for _, p := range f.services {
			r.unknown[convert.KindService][p.key] = misspelt{p.unknown, p.place}
		}
		for _, p := range f.slices {
			r.unknown[convert.KindSlice][p.key] = misspelt{p.unknown, p.place}
		}
		maps.Copy(r.unready, f.unready)
	}
}

// misspelt are the fields of an object that the API does not know, and where the object is.
type misspelt struct {
	paths []string
	place string
}

// collect takes the objects of one kind from all files, sorted by key, and adds their diagnostics
// to the result.
func collect[T any](r *Result, kind string, files []*file, of func(*file) []placed[T]) []T {
	last := map[cluster.Key]placed[T]{}
	for _, f := range files {
		for _, p := range of(f) {
			if before, twice := last[p.key]; twice {
				r.Diagnostics = append(r.Diagnostics, cluster.Diagnostic{
					Severity: cluster.Warning, Kind: kind, Object: p.key,
					Message: "the object stands in " + before.place + " and in " + p.place + ": the second one counts",
					Cure:    "remove one of them",
				})
			}
			last[p.key] = p
		}
	}
	keys := make([]cluster.Key, 0, len(last))
	for k := range last {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cluster.Key.Compare)
	var list []T
	for _, k := range keys {
		list = append(list, last[k].object)
		r.Diagnostics = append(r.Diagnostics, last[k].found...)
	}
	return list
}

// addMentionedNamespaces creates the namespaces that pods and policies refer to and that no file
// has.
func (r *Result) addMentionedNamespaces() {
	known := map[string]bool{}
	for _, n := range r.Namespaces {
		known[n.Name] = true
	}
	mention := func(name string) {
		if !known[name] {
			known[name] = true
			labels := map[string]string{corev1.LabelMetadataName: name}
			r.Namespaces = append(r.Namespaces, &cluster.Namespace{Name: name, Labels: cluster.NewLabels(labels)})
		}
	}
	for _, p := range r.Pods {
		mention(p.Key.Namespace)
	}
	for _, p := range r.Policies {
		mention(p.Key.Namespace)
	}
	slices.SortFunc(r.Namespaces, func(a, b *cluster.Namespace) int { return strings.Compare(a.Name, b.Name) })
}
