// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/cluster/endpoints"
)

// noteReady notes whether a pod's status says that it is not ready. A pod without such a word is
// ready: who writes a pod by hand seldom writes its conditions.
func (f *file) noteReady(p *corev1.Pod) {
	k := cluster.Key{Namespace: p.Namespace, Name: p.Name}
	delete(f.unready, k)
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
			f.unready[k] = true
		}
	}
}

// ofServices reports whether a diagnostic is about a Service or an EndpointSlice.
func ofServices(d cluster.Diagnostic) bool {
	return d.Kind == convert.KindService || d.Kind == convert.KindSlice
}

// Served returns what a service proxy needs, and all that is wrong with it. A Service with a selector
// that no EndpointSlice names gets its slices from the pods, as a cluster's controller makes them.
func (r *Result) Served() (*cluster.ServiceSnapshot, []cluster.Diagnostic) {
	s := &cluster.ServiceSnapshot{Nodes: nodes(r.Nodes), Pods: r.Pods}
	var found []cluster.Diagnostic
	sliced := map[cluster.Key]bool{}
	for _, raw := range r.Slices {
		// A slice that is not served still says that its author writes the slices of this Service.
		sliced[cluster.Key{Namespace: raw.Namespace, Name: raw.Labels[discoveryv1.LabelServiceName]}] = true
		v, more := r.slice(raw)
		found = append(found, more...)
		if v != nil {
			s.Slices = append(s.Slices, v)
		}
	}
	byNamespace := map[string][]*cluster.Pod{}
	for _, p := range r.Pods {
		byNamespace[p.Key.Namespace] = append(byNamespace[p.Key.Namespace], p)
	}
	ready := func(p *cluster.Pod) bool { return !r.unready[p.Key] }
	for _, raw := range r.Services {
		v, more := r.service(raw)
		found = append(found, more...)
		if v == nil {
			continue
		}
		s.Services = append(s.Services, v)
		if !sliced[v.Key] {
			s.Slices = append(s.Slices, endpoints.Slices(raw, byNamespace[raw.Namespace], ready)...)
		}
	}
	return s, append(found, r.written(found)...)
}

// written returns what reading found about Services and slices, without what is said of the same
// field again.
func (r *Result) written(said []cluster.Diagnostic) []cluster.Diagnostic {
	type place struct {
		kind   string
		object cluster.Key
		field  string
	}
	known := map[place]bool{}
	for _, d := range said {
		known[place{d.Kind, d.Object, d.Field}] = d.Field != ""
	}
	return slices.DeleteFunc(slices.Clone(r.Diagnostics), func(d cluster.Diagnostic) bool {
		return !ofServices(d) || r.unserved[d] || known[place{d.Kind, d.Object, d.Field}]
	})
}

// service converts a Service. Of one with an unknown field the smallest part that holds it is not
// served: the field may be a misspelt limit.
func (r *Result) service(raw *corev1.Service) (*cluster.Service, []cluster.Diagnostic) {
	key := cluster.Key{Namespace: raw.Namespace, Name: raw.Name}
	s, whole := raw, false
	found, closed := r.misspelt(convert.KindService, key, func(path string) (part, consequence string) {
		i, entry := entryOf(path, "spec.ports")
		switch {
		case entry && i < len(s.Spec.Ports):
			if s == raw {
				s = raw.DeepCopy() // others read it too
			}
			s.Spec.Ports[i].Protocol = unreadableProtocol
			return "spec.ports[" + strconv.Itoa(i) + "]", "this port is not served"
		case strings.HasPrefix(path, "metadata.") || strings.HasPrefix(path, "status."):
			return "", ""
		}
		whole = true
		return "spec", "the Service is not served"
	})
	if whole {
		return nil, found
	}
	v, more := convert.Service(s)
	if v == nil && lacksAddress(&s.Spec) {
		more = append(more, cluster.Diagnostic{Severity: cluster.Error, Kind: convert.KindService, Object: key,
			Field: "spec.clusterIP", Message: "the Service has no cluster address, so it is not served",
			Cure: "write one that is free, since no API server is there to choose it; None for a headless Service"})
	}
	return v, append(found, without(more, closed)...)
}

// lacksAddress reports whether an API server would choose the address.
func lacksAddress(s *corev1.ServiceSpec) bool {
	return s.ClusterIP == "" && len(s.ClusterIPs) == 0 && s.Type != corev1.ServiceTypeExternalName
}

// slice converts an EndpointSlice, likewise.
func (r *Result) slice(raw *discoveryv1.EndpointSlice) (*cluster.EndpointSlice, []cluster.Diagnostic) {
	s, whole := raw, false
	key := cluster.Key{Namespace: raw.Namespace, Name: raw.Name}
	found, closed := r.misspelt(convert.KindSlice, key, func(path string) (part, consequence string) {
		if s == raw {
			s = raw.DeepCopy()
		}
		if i, entry := entryOf(path, "ports"); entry && i < len(s.Ports) {
			protocol := unreadableProtocol
			s.Ports[i].Protocol = &protocol
			return "ports[" + strconv.Itoa(i) + "]", "this port is not served"
		}
		if i, entry := entryOf(path, "endpoints"); entry && i < len(s.Endpoints) {
			s.Endpoints[i].Addresses = nil
			return "endpoints[" + strconv.Itoa(i) + "]", "this endpoint is not served"
		}
		if strings.HasPrefix(path, "metadata.") {
			return "", ""
		}
		whole = true
		return "", "the slice is not served"
	})
	if whole {
		return nil, found
	}
	v, more := convert.EndpointSlice(s)
	return v, append(found, without(more, closed)...)
}

// unreadableProtocol is one that conversion refuses.
const unreadableProtocol corev1.Protocol = "unknown field"

// misspelt returns the diagnostics about unknown fields of an object, and the parts that were closed
// because of them. closePart closes the part that holds a field and returns its path and the
// consequence; neither for a field without effect.
func (r *Result) misspelt(kind string, k cluster.Key, closePart func(path string) (part, consequence string)) (
	found []cluster.Diagnostic, closed []string) {
	m := r.unknown[kind][k]
	for _, path := range m.paths {
		part, consequence := closePart(path)
		if consequence == "" {
			continue
		}
		closed = append(closed, part)
		found = append(found, cluster.Diagnostic{Severity: cluster.Error, Kind: kind, Object: k, Field: path,
			Message: "unknown field: " + consequence + " (" + m.place + ")",
			Cure:    "correct the spelling or the indentation"})
	}
	return found, closed
}

var entryPart = regexp.MustCompile(`^(.*?)\[(\d+)\]`)

// entryOf returns the index of the entry of a list in which a path is.
func entryOf(path, list string) (int, bool) {
	m := entryPart.FindStringSubmatch(path)
	if m == nil || m[1] != list {
		return 0, false
	}
	i, err := strconv.Atoi(m[2])
	return i, err == nil
}
