// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

// workload is an object that makes pods in a cluster. In the lab nobody does, so pods
// are invented from its template.
type workload struct {
	kind string
	meta metav1.ObjectMeta
	// replicas is how many pods it wants; -1 is one on each node.
	replicas int
	template corev1.PodTemplateSpec
}

// maxInvented bounds the pods of one workload: they are all alike to policies, and
// every pair of pods is tried.
const maxInvented = 2

// isWorkload reports whether an object makes pods.
func isWorkload(o manifest.Object) bool {
	group, _, _ := strings.Cut(o.APIVersion, "/")
	switch o.Kind {
	case "Deployment", "StatefulSet", "ReplicaSet", "DaemonSet":
		return group == "apps"
	case "Job", "CronJob":
		return group == "batch"
	}
	return o.Kind == "ReplicationController" && o.APIVersion == "v1"
}

func (in *Input) addWorkload(o manifest.Object) error {
	type podMaker struct {
		Replicas    *int                    `json:"replicas"`
		Parallelism *int                    `json:"parallelism"`
		Template    *corev1.PodTemplateSpec `json:"template"`
	}
	made := podMaker{}
	object := struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     any               `json:"spec"`
	}{Spec: &made}
	if o.Kind == "CronJob" {
		object.Spec = &struct {
			JobTemplate struct {
				Spec *podMaker `json:"spec"`
			} `json:"jobTemplate"`
		}{struct {
			Spec *podMaker `json:"spec"`
		}{&made}}
	}
	if err := json.Unmarshal(o.JSON, &object); err != nil {
		return wrongType(err)
	}
	if made.Template == nil {
		return fmt.Errorf("it has no template of pods")
	}
	w := workload{kind: o.Kind, meta: object.Metadata, replicas: 1, template: *made.Template}
	if n := cmp.Or(made.Replicas, made.Parallelism); n != nil {
		w.replicas = *n
	}
	if o.Kind == "DaemonSet" {
		w.replicas = -1
	}
	w.meta.Namespace = cmp.Or(w.meta.Namespace, corev1.NamespaceDefault)
	in.workloads = append(in.workloads, w)
	if node := w.template.Spec.NodeName; node != "" {
		in.Nodes = append(in.Nodes, node)
	}
	return nil
}

// wrongType says which field has the wrong type, if that is the error.
func wrongType(err error) error {
	var e *json.UnmarshalTypeError
	if !errors.As(err, &e) {
		return err
	}
	want := e.Type.String()
	switch e.Type.Kind() {
	case reflect.Struct, reflect.Map:
		want = "an object"
	case reflect.Slice:
		want = "a list"
	}
	return fmt.Errorf("%s is a %s, want %s", e.Field, e.Value, want)
}

// invent makes the pods of the workloads, and notes what was made.
func (in *Input) invent() {
	real, taken := slices.Clone(in.Pods), map[cluster.Key]bool{}
	for _, p := range real {
		taken[podKey(p)] = true
	}
	for _, w := range in.workloads {
		if in.owned(w) {
			continue // whoever owns it makes the pods
		}
		if slices.ContainsFunc(real, w.has) {
			in.Invented = append(in.Invented, w.title()+"its pods are in the input")
			continue
		}
		n := min(w.replicas, maxInvented)
		if w.replicas < 0 {
			n = len(in.Nodes)
		}
		var names []string
		number := 0
		for i := range n {
			p := w.pod(number)
			for ; taken[podKey(p)]; p = w.pod(number) { // two workloads may have one name
				number++
			}
			taken[podKey(p)] = true
			if w.replicas < 0 {
				p.Spec.NodeName = in.Nodes[i]
			}
			in.Pods, in.items = append(in.Pods, p), append(in.items, item{pod: p})
			in.Made[podKey(p)] = w.meta.Name
			names = append(names, p.Name)
		}
		in.Invented = append(in.Invented, w.said(names))
	}
}

func podKey(p *corev1.Pod) cluster.Key { return cluster.Key{Namespace: p.Namespace, Name: p.Name} }

// owned reports whether the workload belongs to another one of the input, as a ReplicaSet
// to its Deployment.
func (in *Input) owned(w workload) bool {
	owner := metav1.GetControllerOf(&w.meta)
	return owner != nil && slices.ContainsFunc(in.workloads, func(o workload) bool {
		return o.kind == owner.Kind && o.meta.Name == owner.Name && o.meta.Namespace == w.meta.Namespace
	})
}

// has reports whether a pod was made of the workload's template by a controller.
func (w workload) has(p *corev1.Pod) bool {
	for k, v := range w.template.Labels {
		if p.Labels[k] != v {
			return false
		}
	}
	return p.Namespace == w.meta.Namespace && metav1.GetControllerOf(p) != nil
}

func (w workload) title() string {
	return fmt.Sprintf("%s %s/%s: ", w.kind, w.meta.Namespace, w.meta.Name)
}

// pod returns the workload's pod of that number.
func (w workload) pod(number int) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: *w.template.Spec.DeepCopy()}
	p.Name, p.Namespace = fmt.Sprintf("%s-%d", w.meta.Name, number), w.meta.Namespace
	p.Labels, p.Annotations = w.template.Labels, w.template.Annotations
	return p
}

// said tells which pods were invented.
func (w workload) said(names []string) string {
	text := w.title()
	switch {
	case len(names) == 0:
		return text + "no pods, since it wants none"
	case w.replicas > len(names):
		return text + fmt.Sprintf("invented the pods %s instead of %d, which are all alike", strings.Join(names,
			", "), w.replicas)
	}
	return text + "invented the pods " + strings.Join(names, ", ")
}
