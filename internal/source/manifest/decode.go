// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// file holds the content of one file. Objects are in the order of the text.
type file struct {
	namespaces []placed[*cluster.Namespace]
	pods       []placed[*cluster.Pod]
	policies   []placed[*cluster.Policy]
	services   []placed[*corev1.Service]
	slices     []placed[*discoveryv1.EndpointSlice]
	nodes      []placed[*corev1.Node]
	unready    map[cluster.Key]bool // pods whose status says that they are not ready
	ignored    []cluster.Diagnostic
	unserved   []cluster.Diagnostic // that only a service proxy uses the slices
	others     int                  // policies of other projects, among the ignored ones
	empty      bool                 // there is no document, or only comments
	interner   *convert.Interner
}

// placed is an object with its origin.
type placed[T any] struct {
	object T
	key    cluster.Key
	place  string // FILE:LINE of the document, and the position in a list
	found  []cluster.Diagnostic
	// unknown are the paths of the fields that the API does not know.
	unknown []string
}

func parseFile(name string, data []byte) (*file, error) {
	f := &file{interner: convert.NewInterner(), unready: map[cluster.Key]bool{}}
	defer func() { f.interner = nil }()
	count, err := visit(name, data, f.addObject)
	f.empty = count == 0
	return f, err
}

// addObject reads one object.
func (f *file) addObject(d *document, h *head) error {
	switch h.use {
	case usePolicy, useOldPolicy, useTypoPolicy:
		return f.addPolicy(d, h)
	case useTypoCore:
		cure := "write apiVersion: v1, and the kind as in Pod or Namespace"
		if folded(h.Kind) == folded(convert.KindSlice) {
			cure = "write apiVersion: " + discoveryv1.SchemeGroupVersion.String() + " and kind: " + convert.KindSlice
		}
		return d.errorAt(d.lineOf("kind"),
			fmt.Sprintf("apiVersion %s and kind %s are unknown, and almost those of a kind that is used",
				quoted(h.APIVersion), quoted(h.Kind)), cure)
	case useCore:
		if h.Kind == convert.KindSlice {
			f.unserved = append(f.unserved, d.ignored(h))
		}
		return f.addCore(d, h.Kind)
	case useOtherPolicy:
		f.others++
	}
	f.ignored = append(f.ignored, d.ignored(h))
	return nil
}

func (f *file) addCore(d *document, kind string) error {
	switch kind {
	case "Namespace":
		return addTo(d, &f.namespaces, new(corev1.Namespace), kind, namespace)
	case "Pod":
		return addTo(d, &f.pods, new(corev1.Pod), kind, func(p *corev1.Pod, found *[]cluster.Diagnostic) *cluster.Pod {
			*found = append(*found, d.badAddresses(p)...)
			f.noteReady(p)
			return f.interner.Pod(p)
		})
	case convert.KindService:
		return addTo(d, &f.services, new(corev1.Service), kind, asIs[corev1.Service])
	case convert.KindSlice:
		return addTo(d, &f.slices, new(discoveryv1.EndpointSlice), kind, asIs[discoveryv1.EndpointSlice])
	default:
		return addTo(d, &f.nodes, new(corev1.Node), kind, asIs[corev1.Node])
	}
}

func asIs[T any](o *T, _ *[]cluster.Diagnostic) *T { return o }

// ignored returns the diagnostic about an object that is not used. It is an error if a policy or a
// pod is lost with it.
func (d *document) ignored(h *head) cluster.Diagnostic {
	w := cluster.Diagnostic{Severity: cluster.Warning, Kind: h.Kind, Object: h.key}
	lost := d.lost()
	switch {
	case lost != "" && h.Kind != "Template":
		w.Message = h.APIVersion + " " + h.Kind + " is not used"
		w.Cure = "write kind: List if it is one, with nothing but objects below items"
	case h.use == useOtherPolicy:
		w.Message = h.APIVersion + " " + h.Kind + " is a policy of another project: it is not enforced"
		w.Cure = "write it as a NetworkPolicy of networking.k8s.io/v1, or leave it to that project's agent"
	case slices.Contains(Workloads(), h.Kind):
		w.Message = "workloads are not used, only pods are"
		w.Cure = "write the pods themselves, with spec.nodeName and status.podIPs"
	case h.Kind == "Template":
		w.Message = "templates are not used: its content is not read"
		w.Cure = "process it first, for example with oc process"
	default:
		w.Message = h.APIVersion + " " + h.Kind + " is not used"
		w.Cure = "nothing to do, or move the object to a directory of its own"
	}
	if lost != "" {
		w.Severity, w.Field = cluster.Error, lost
		w.Message += ", although a policy or a pod stands at " + shown(lost)
	}
	w.Message += d.at(lost)
	return w
}

// Workloads are the kinds that create pods in a cluster.
func Workloads() []string {
	return []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"}
}

// object is an API object that can be decoded into.
type object[T any] interface {
	*T
	metav1.Object
}

// addTo decodes an object and appends the result of its conversion. Fields that the API does not
// know are warnings here: leaving them out opens nothing, except for those that may be meant as
// namespace or labels.
func addTo[T, C any, P object[T]](d *document, list *[]placed[*C], into P, kind string,
	conv func(P, *[]cluster.Diagnostic) *C,
) error {
	unknown, err := d.decode(into)
	if err != nil {
		return err
	}
	found, err := d.named(into, kind)
	if err == nil {
		err = d.meantElsewhere(unknown, kind)
	}
	if err != nil {
		return err
	}
	for i := range found {
		found[i].Message += d.at(found[i].Field)
	}
	key := cluster.Key{Namespace: into.GetNamespace(), Name: into.GetName()}
	for _, path := range unknown {
		found = append(found, cluster.Diagnostic{
			Severity: cluster.Warning, Kind: kind, Object: key, Field: path,
			Message: "unknown field, it is not used" + d.at(path), Cure: "correct or remove it",
		})
	}
	converted := conv(into, &found)
	*list = append(*list, placed[*C]{converted, key, d.origin(), found, unknown})
	return nil
}

// namespace sets the label that the API server sets on every namespace, so that selectors can name
// it. Users cannot change its value there.
func namespace(n *corev1.Namespace, found *[]cluster.Diagnostic) *cluster.Namespace {
	if set, ok := n.Labels[corev1.LabelMetadataName]; ok && set != n.Name {
		*found = append(*found, cluster.Diagnostic{
			Severity: cluster.Warning, Kind: "Namespace", Object: cluster.Key{Name: n.Name},
			Field:   "metadata.labels[" + corev1.LabelMetadataName + "]",
			Message: fmt.Sprintf("the label must be the namespace's name: %q is not used", set),
			Cure:    "remove the label",
		})
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
	return convert.Namespace(n)
}

// decode reads the JSON into an API object, with field names case-sensitive as in the API server,
// and returns the paths of the fields that it does not know.
func (d *document) decode(into any) (unknown []string, err error) {
	strict, err := kjson.UnmarshalStrict(d.json, into)
	if err != nil {
		return nil, d.typeError(into, err)
	}
	if len(strict) >= maxStrict {
		return nil, d.errorAt(d.lineOf(""), "the object has a hundred unknown fields or more",
			"see kubectl explain for the fields")
	}
	for _, e := range strict {
		if err := d.twice(e); err != nil {
			return nil, err
		}
		if field, ok := errors.AsType[kjson.FieldError](e); ok {
			unknown = append(unknown, field.FieldPath())
		}
	}
	return unknown, nil
}

// maxStrict is the number of unknown fields after which the decoder stops listing them.
const maxStrict = 100

// twice returns an error if the decoder reports a duplicate field. In YAML that was an error
// already.
func (d *document) twice(found error) error {
	field, ok := errors.AsType[kjson.FieldError](found)
	if !ok || !strings.HasPrefix(found.Error(), "duplicate field") {
		return nil
	}
	return d.errorAt(d.lineOf(field.FieldPath()), shown(field.FieldPath())+" stands twice", "remove one of the two")
}
