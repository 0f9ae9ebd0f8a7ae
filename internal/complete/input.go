// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

// Input is what manifests contain. Node objects are kept by name only; all else that is
// no pod stays as it is written.
type Input struct {
	Pods  []*corev1.Pod
	Nodes []string
	// Invented says which pods were made of workloads, one line for each workload.
	Invented []string
	// Namespaces are those that have an object.
	Namespaces map[string]bool
	// Found is about workloads that no pods can be made of.
	Found []cluster.Diagnostic
	// Made has the workload, without namespace, of a pod that was invented.
	Made map[cluster.Key]string

	items     []item
	workloads []workload
}

// item is one object.
type item struct {
	text   []byte
	pod    *corev1.Pod // instead of text
	policy bool
}

// ErrNoPods is the reason why manifests without pods and workloads cannot be completed.
var ErrNoPods = errors.New("no pods")

// Read reads files and directories, with the reader of the agent. What cannot be
// understood counts for nothing here either; manifest.Load reports it.
func Read(from manifest.From) (*Input, error) {
	objects, err := manifest.Objects(from)
	if err != nil {
		return nil, err
	}
	in := &Input{Made: map[cluster.Key]string{}, Namespaces: map[string]bool{}}
	for _, o := range objects {
		if err := in.add(o); err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", o.Kind, o.Key, err)
		}
	}
	slices.Sort(in.Nodes)
	if in.Nodes = slices.Compact(in.Nodes); len(in.Nodes) == 0 {
		in.Nodes = []string{"node1", "node2"}
	}
	in.invent()
	if len(in.Pods) == 0 {
		err := fmt.Errorf("%w in %s: Pods are needed, or workloads with a template of them", ErrNoPods, from)
		for _, d := range in.Found {
			err = fmt.Errorf("%w; %s %s: %s", err, d.Kind, d.Object, d.Message)
		}
		return nil, err
	}
	return in, nil
}

func (in *Input) add(o manifest.Object) error {
	switch {
	case o.Kind == "Node" && o.APIVersion == "v1":
		in.Nodes = append(in.Nodes, o.Key.Name)
	case o.Kind == "Pod" && o.APIVersion == "v1":
		return in.addPod(o.JSON)
	case isWorkload(o):
		if err := in.addWorkload(o); err != nil {
			key := cluster.Key{Namespace: cmp.Or(o.Key.Namespace, corev1.NamespaceDefault), Name: o.Key.Name}
			in.Found = append(in.Found, cluster.Diagnostic{Severity: cluster.Error, Kind: o.Kind, Object: key,
				Message: fmt.Sprintf("no pods are made of it: %v", err),
				Cure:    "correct the field; the API refuses the object too"})
		}
	default:
		if o.Kind == "Namespace" {
			in.Namespaces[o.Key.Name] = true
		}
		in.items = append(in.items, item{text: o.JSON, policy: o.Policy})
	}
	return nil
}

func (in *Input) addPod(text []byte) error {
	p := &corev1.Pod{}
	if err := json.Unmarshal(text, p); err != nil {
		return err
	}
	p.Namespace = cmp.Or(p.Namespace, corev1.NamespaceDefault)
	if p.Spec.NodeName != "" {
		in.Nodes = append(in.Nodes, p.Spec.NodeName)
	}
	in.Pods, in.items = append(in.Pods, p), append(in.items, item{pod: p})
	return nil
}

// Render writes everything as one file, so that a change is one change.
func (in *Input) Render(policies bool) ([]byte, error) {
	var b bytes.Buffer
	for _, i := range in.items {
		if i.policy && !policies {
			continue
		}
		text := i.text
		if i.pod != nil {
			var err error
			if text, err = yaml.Marshal(i.pod); err != nil {
				return nil, fmt.Errorf("writing pod %s/%s: %w", i.pod.Namespace, i.pod.Name, err)
			}
		}
		b.WriteString("---\n")
		b.Write(text)
		b.WriteString("\n")
	}
	return b.Bytes(), nil
}
