// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

// input is what the user's manifests become in the lab: pods get a node and
// addresses where they have none, Node objects are left out because the lab's
// nodes have addresses of their own, all else stays as it is written.
type input struct {
	items     []item
	pods      []*corev1.Pod
	nodes     []string
	workloads []workload
	invented  []string // what to say of the pods that workloads got
	// namespaces are those that have an object.
	namespaces map[string]bool
	// found is about workloads that no pods can be made of.
	found []cluster.Diagnostic
	// made has the workload, without namespace, of a pod that was invented.
	made map[cluster.Key]string
}

// item is one object.
type item struct {
	text   []byte
	pod    *corev1.Pod // instead of text
	policy bool
}

// readInput reads files and directories, with the reader of the agent. What cannot
// be understood counts for nothing here either; manifest.Load has said so.
func readInput(from manifest.From) (*input, error) {
	objects, err := manifest.Objects(from)
	if err != nil {
		return nil, err
	}
	in := &input{made: map[cluster.Key]string{}, namespaces: map[string]bool{}}
	for _, o := range objects {
		if err := in.add(o); err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", o.Kind, o.Key, err)
		}
	}
	in.nodes = sortedUnique(in.nodes)
	if len(in.nodes) == 0 {
		in.nodes = []string{"node1", "node2"}
	}
	in.invent()
	if len(in.pods) == 0 {
		err := fmt.Errorf("no pods in %s: the lab needs Pods, or workloads with a template of them", from)
		for _, d := range in.found {
			err = fmt.Errorf("%w; %s %s: %s", err, d.Kind, d.Object, d.Message)
		}
		return nil, err
	}
	return in, nil
}

func (in *input) add(o manifest.Object) error {
	switch {
	case o.Kind == "Node" && o.APIVersion == "v1":
		in.nodes = append(in.nodes, o.Key.Name)
	case o.Kind == "Pod" && o.APIVersion == "v1":
		return in.addPod(o.JSON)
	case isWorkload(o):
		if err := in.addWorkload(o); err != nil {
			key := cluster.Key{Namespace: cmp.Or(o.Key.Namespace, corev1.NamespaceDefault), Name: o.Key.Name}
			in.found = append(in.found, cluster.Diagnostic{Severity: cluster.Error, Kind: o.Kind, Object: key,
				Message: fmt.Sprintf("no pods are made of it: %v", err), Cure: "correct the field; the API refuses the object too"})
		}
	default:
		if o.Kind == "Namespace" {
			in.namespaces[o.Key.Name] = true
		}
		in.items = append(in.items, item{text: o.JSON, policy: o.Policy})
	}
	return nil
}

func (in *input) addPod(text []byte) error {
	p := &corev1.Pod{}
	if err := json.Unmarshal(text, p); err != nil {
		return err
	}
	p.Namespace = cmp.Or(p.Namespace, corev1.NamespaceDefault)
	if p.Spec.NodeName != "" {
		in.nodes = append(in.nodes, p.Spec.NodeName)
	}
	in.pods, in.items = append(in.pods, p), append(in.items, item{pod: p})
	return nil
}

// render writes everything as one file, so that a change is one change.
func (in *input) render(policies bool) ([]byte, error) {
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
