// SPDX-License-Identifier: Apache-2.0

// Package manifest is the source without a cluster: a directory of Kubernetes YAML or JSON. It
// reads these files, handles files that cannot be read, and watches the directory. The meaning of
// the objects is in package convert, so that text from a file and an object from the API are judged
// by the same code.
//
// It is at the start of the data path, like package kube, and fills a cluster.Store. It never
// writes a file.
//
// It reads:
//   - the files *.yaml, *.yml and *.json of the directory itself, not of its
//     sub-directories, and none whose name starts with a dot;
//   - YAML documents, JSON objects one after another, lists of objects and typed
//     lists, in UTF-8, or in UTF-16 with a byte order mark;
//   - Namespace, Pod and NetworkPolicy (networking.k8s.io/v1, and the old
//     extensions/v1beta1 with a warning); Node; Service and EndpointSlice (discovery.k8s.io/v1), for
//     a service proxy and for the lab. Every other kind is ignored, with a diagnostic.
//
// Every byte of a file is in an object, in a comment, or the file is refused: nothing is ignored
// silently. docs/manifests.md describes this for users.
//
// As the API server does, it puts namespaced objects without a namespace into "default" and labels
// every namespace with kubernetes.io/metadata.name. A namespace that is only mentioned exists.
//
// A file whose text cannot be understood changes nothing: its last good content stays in force; if
// there was none, nothing of the file is used. At the start every file must be understood before
// anything is enforced. In a policy that can be read except for an unknown field, the smallest part
// that holds the field matches nothing; a policy with a misspelt kind or apiVersion isolates the
// pods that it selects.
package manifest

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// KindFile is the Kind of diagnostics about files. Their Object is the file's
// name and their Field is FILE:LINE.
const KindFile = "File"

// Result is the content of files, sorted by key, without duplicates.
type Result struct {
	Namespaces []*cluster.Namespace
	Pods       []*cluster.Pod
	Policies   []*cluster.Policy
	// Services and Slices are as written. The lab builds the Services; what a service proxy needs of
	// both is in Served.
	Services []*corev1.Service
	Slices   []*discoveryv1.EndpointSlice
	// Nodes let the agent check that it runs on the right node, and are built by the lab.
	Nodes       []*corev1.Node
	Diagnostics []cluster.Diagnostic

	others  int // policies of other projects
	unready map[cluster.Key]bool
	unknown map[string]map[cluster.Key]misspelt // by kind
	// unserved are those of the diagnostics that do not hold where there is a service proxy.
	unserved map[cluster.Diagnostic]bool
}

// AsWritten reports whether every object was read, and every policy is enforced as it is written.
// It is false if a diagnostic is an error, and if there is a policy of another project.
func (r *Result) AsWritten() bool {
	isError := func(d cluster.Diagnostic) bool { return d.Severity == cluster.Error }
	return r.others == 0 && !slices.ContainsFunc(r.Diagnostics, isError)
}

// Snapshot returns the content as a snapshot of revision 1.
func (r *Result) Snapshot() *cluster.Snapshot {
	return &cluster.Snapshot{Revision: 1, Namespaces: r.Namespaces, Pods: r.Pods, Policies: r.Policies}
}

// SyntaxError names the place where the text of a file cannot be understood.
type SyntaxError struct {
	File    string
	Line    int // from 1
	Message string
	Cure    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// diagnostic turns the error of a file into a diagnostic; consequence says what is in force instead
// of the file.
func (e *SyntaxError) diagnostic(consequence string) cluster.Diagnostic {
	return cluster.Diagnostic{
		Severity: cluster.Error, Kind: KindFile, Object: cluster.Key{Name: e.File},
		Field:   fmt.Sprintf("%s:%d", e.File, e.Line),
		Message: e.Message + ": " + consequence, Cure: e.Cure,
	}
}

// Parse reads the text of one file. The error is a *SyntaxError; then nothing of the file is used.
func Parse(name string, data []byte) (*Result, error) {
	f, err := parseFile(name, data)
	if err != nil {
		return nil, err
	}
	return merge([]*file{f}), nil
}

// Load reads files and directories. Files whose text cannot be understood are in the diagnostics;
// the error is about paths that cannot be opened.
func Load(from From) (*Result, error) {
	files, err := from.read()
	if err != nil {
		return nil, err
	}
	var good []*file
	var broken []cluster.Diagnostic
	for _, raw := range files {
		f, bad := raw.parse()
		if bad != nil {
			broken = append(broken, bad.diagnostic("nothing of the file is used"))
			continue
		}
		if f.empty {
			empty := emptyFile(raw.name).diagnostic("an agent that starts with it waits")
			empty.Severity = cluster.Warning
			broken = append(broken, empty)
		}
		good = append(good, f)
	}
	result := merge(good)
	result.Diagnostics = append(broken, result.Diagnostics...)
	return result, nil
}
