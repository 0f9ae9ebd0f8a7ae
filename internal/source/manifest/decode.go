// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// file is what one file holds. Objects are in the order of the text.
type file struct {
	namespaces []placed[*cluster.Namespace]
	pods       []placed[*cluster.Pod]
	policies   []placed[*cluster.Policy]
	services   []placed[*corev1.Service]
	nodes      []placed[*corev1.Node]
	ignored    []cluster.Diagnostic
	interner   *convert.Interner
}

// placed is an object and what is known about where it came from.
type placed[T any] struct {
	object T
	key    cluster.Key
	place  string // FILE:LINE of the document, and the place in a list
	found  []cluster.Diagnostic
}

func parseFile(name string, data []byte) (*file, error) {
	f := &file{interner: convert.NewInterner()}
	defer func() { f.interner = nil }()
	for _, d := range split(name, data) {
		some, err := d.toJSON()
		if err != nil {
			return nil, err
		}
		if !some {
			continue
		}
		if err := f.add(&d, metav1.TypeMeta{}); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// add reads one object. The objects of a typed list need not repeat their type,
// which is then inherited.
func (f *file) add(d *document, inherited metav1.TypeMeta) error {
	var meta struct {
		metav1.TypeMeta `json:",inline"`
		Name            *json.RawMessage  `json:"name"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(d.json, &meta); err != nil {
		return d.jsonError(err)
	}
	t := meta.TypeMeta
	if t.APIVersion == "" && t.Kind == "" {
		t = inherited
	}
	if t.APIVersion == "" || t.Kind == "" {
		return d.errorAt(d.lineOf(""), "the object has no apiVersion or no kind", "write both, at the start of the object")
	}
	if strings.HasSuffix(t.Kind, "List") {
		return f.addList(d, t, meta.Items)
	}
	if wanted(t) && meta.Metadata.Name == "" {
		if meta.Name != nil {
			return d.errorAt(d.lineOf("name"), "name stands outside of metadata, the object has none",
				"indent name and namespace below metadata, and the rules below spec")
		}
		return d.errorAt(d.lineOf("metadata"), "the object has no metadata.name", "give it a name")
	}
	key := cluster.Key{Namespace: meta.Metadata.Namespace, Name: meta.Metadata.Name}
	return f.addObject(d, t, key)
}

func (f *file) addList(d *document, t metav1.TypeMeta, items []json.RawMessage) error {
	inherited := metav1.TypeMeta{APIVersion: t.APIVersion, Kind: strings.TrimSuffix(t.Kind, "List")}
	for i, raw := range items {
		item := *d
		item.json = raw
		item.base = strings.TrimPrefix(fmt.Sprintf("%s.items[%d]", d.base, i), ".")
		if err := f.add(&item, inherited); err != nil {
			return err
		}
	}
	return nil
}

func isPolicy(t metav1.TypeMeta) bool {
	return t.Kind == convert.KindPolicy &&
		(t.APIVersion == networkingv1.SchemeGroupVersion.String() || isOldPolicy(t))
}

// isOldPolicy knows the group in which NetworkPolicy began. Kubernetes 1.16
// stopped serving it; the fields are the same.
func isOldPolicy(t metav1.TypeMeta) bool {
	return t.Kind == convert.KindPolicy && t.APIVersion == extensionsv1beta1.SchemeGroupVersion.String()
}

func wanted(t metav1.TypeMeta) bool {
	if t.APIVersion != "v1" {
		return isPolicy(t)
	}
	return t.Kind == "Namespace" || t.Kind == "Pod" || t.Kind == "Service" || t.Kind == "Node"
}

func (f *file) addObject(d *document, t metav1.TypeMeta, key cluster.Key) error {
	if isPolicy(t) {
		return f.addPolicy(d, isOldPolicy(t))
	}
	if !wanted(t) {
		f.ignored = append(f.ignored, d.ignored(t, key))
		return nil
	}
	switch t.Kind {
	case "Namespace":
		return addTo(d, &f.namespaces, new(corev1.Namespace), "Namespace", namespace)
	case "Pod":
		return addTo(d, &f.pods, new(corev1.Pod), "Pod", func(p *corev1.Pod, _ *[]cluster.Diagnostic) *cluster.Pod {
			return f.interner.Pod(p)
		})
	case "Service":
		return addTo(d, &f.services, new(corev1.Service), "Service", asIs[corev1.Service])
	default:
		return addTo(d, &f.nodes, new(corev1.Node), "Node", asIs[corev1.Node])
	}
}

func asIs[T any](o *T, _ *[]cluster.Diagnostic) *T { return o }

// ignored says that an object is left alone.
func (d *document) ignored(t metav1.TypeMeta, key cluster.Key) cluster.Diagnostic {
	w := cluster.Diagnostic{Severity: cluster.Warning, Kind: t.Kind, Object: key}
	switch t.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
		w.Message = "workloads are not used, only pods are"
		w.Cure = "write the pods themselves, with spec.nodeName and status.podIPs"
	default:
		w.Message = t.APIVersion + " " + t.Kind + " is not used"
		w.Cure = "nothing to do, or move the object to a directory of its own"
	}
	w.Message += d.at("")
	return w
}

// at tells the place of a field, as the end of a message.
func (d *document) at(path string) string { return fmt.Sprintf(" (%s:%d)", d.file, d.lineOf(path)) }

// origin tells the place of the object, without looking for its line.
func (d *document) origin() string {
	return strings.TrimSuffix(fmt.Sprintf("%s:%d %s", d.file, d.line, d.base), " ")
}

// object is an API object that can be decoded into.
type object[T any] interface {
	*T
	metav1.Object
}

// addTo decodes an object and appends what it is converted to. Fields that the
// API does not know are warnings here: nothing opens by leaving them out.
func addTo[T, C any, P object[T]](d *document, list *[]placed[*C], into P, kind string,
	conv func(P, *[]cluster.Diagnostic) *C,
) error {
	unknown, err := d.decode(into)
	if err != nil {
		return err
	}
	defaultNamespace(into, kind)
	key := cluster.Key{Namespace: into.GetNamespace(), Name: into.GetName()}
	var found []cluster.Diagnostic
	for _, path := range unknown {
		found = append(found, cluster.Diagnostic{
			Severity: cluster.Warning, Kind: kind, Object: key, Field: path,
			Message: "unknown field, it is not used" + d.at(path), Cure: "correct or remove it",
		})
	}
	converted := conv(into, &found)
	*list = append(*list, placed[*C]{converted, key, d.origin(), found})
	return nil
}

func defaultNamespace(o metav1.Object, kind string) {
	switch {
	case kind == "Namespace" || kind == "Node":
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(metav1.NamespaceDefault)
	}
}

// namespace sets the label that the API server sets on every namespace, so
// that selectors can name it. Users cannot give it another value there.
func namespace(n *corev1.Namespace, found *[]cluster.Diagnostic) *cluster.Namespace {
	if set, ok := n.Labels[corev1.LabelMetadataName]; ok && set != n.Name {
		*found = append(*found, cluster.Diagnostic{
			Severity: cluster.Warning, Kind: "Namespace", Object: cluster.Key{Name: n.Name},
			Field:   "metadata.labels[" + corev1.LabelMetadataName + "]",
			Message: fmt.Sprintf("the label must be the namespace's name: %q is not used", set), Cure: "remove the label",
		})
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
	return convert.Namespace(n)
}

// decode reads the JSON into an API object, with the case of field names as the
// API server minds it, and returns the paths of the fields that it does not
// know. A field that stands twice is an error already in the YAML.
func (d *document) decode(into any) (unknown []string, err error) {
	strict, err := kjson.UnmarshalStrict(d.json, into, kjson.DisallowUnknownFields)
	if err != nil {
		return nil, d.jsonError(err)
	}
	for _, e := range strict {
		if field, ok := e.(kjson.FieldError); ok {
			unknown = append(unknown, field.FieldPath())
		}
	}
	return unknown, nil
}
