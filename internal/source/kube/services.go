// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// WithServices returns the source, which then watches Services and EndpointSlices
// too, for a store that keeps them. It is to be called first, before CountErrors.
func (s *Source) WithServices() *Source {
	s.services = true
	s.addReporters(serviceKinds(nil))
	return s
}

// forThisProxy leaves out what the server need not send: what another proxy serves,
// and the slices of headless Services.
func forThisProxy(o *metav1.ListOptions) {
	o.LabelSelector = "!" + corev1.IsHeadlessService + ",!" + convert.LabelProxyName
}

func serviceKinds(store *cluster.Store) []watched {
	interner := convert.NewInterner() // used by the goroutine of the slices only
	services := &served[cluster.Service]{
		findings: newFindings(convert.KindService, (*cluster.Tx).SetServiceDiagnostics),
		put:      (*cluster.Tx).SetService, drop: (*cluster.Tx).DeleteService, putAll: (*cluster.Tx).ReplaceServices}
	endpoints := &served[cluster.EndpointSlice]{
		findings: newFindings(convert.KindSlice, (*cluster.Tx).SetServiceDiagnostics),
		put:      (*cluster.Tx).SetEndpointSlice, drop: (*cluster.Tx).DeleteEndpointSlice,
		putAll: (*cluster.Tx).ReplaceEndpointSlices}
	return []watched{
		{corev1.SchemeGroupVersion, "services", &prunedService{}, &sink[*corev1.Service, read[cluster.Service]]{
			store: store, kind: cluster.Services,
			convert: func(o *corev1.Service) read[cluster.Service] {
				v, found := convert.Service(o)
				return readOf(o, v, found)
			},
			set: services.set, remove: services.remove, replace: services.replace, key: keyOfRead[cluster.Service],
		}, forThisProxy},
		{discoveryv1.SchemeGroupVersion, "endpointslices", &prunedSlice{},
			&sink[*discoveryv1.EndpointSlice, read[cluster.EndpointSlice]]{
				store: store, kind: cluster.EndpointSlices,
				convert: func(o *discoveryv1.EndpointSlice) read[cluster.EndpointSlice] {
					v, found := interner.EndpointSlice(o)
					return readOf(o, v, found)
				},
				set: endpoints.set, remove: endpoints.remove, replace: endpoints.replace,
				key: keyOfRead[cluster.EndpointSlice], listed: interner.Forget,
			}, forThisProxy},
	}
}

// read is what became of an object.
type read[T any] struct {
	key   cluster.Key
	value *T // nil if the proxy does not serve it
	found []cluster.Diagnostic
}

// readOf does not reference o.
func readOf[T any](o metav1.Object, value *T, found []cluster.Diagnostic) read[T] {
	key := cluster.Key{Namespace: strings.Clone(o.GetNamespace()), Name: strings.Clone(o.GetName())}
	return read[T]{key, value, found}
}

func keyOfRead[T any](r read[T]) cluster.Key { return r.key }

// served keeps the objects of a kind together with their diagnostics.
type served[T any] struct {
	findings
	put    func(*cluster.Tx, *T)
	drop   func(*cluster.Tx, cluster.Key)
	putAll func(*cluster.Tx, []*T)
}

func (s *served[T]) set(tx *cluster.Tx, r read[T]) {
	if r.value == nil {
		s.drop(tx, r.key)
	} else {
		s.put(tx, r.value)
	}
	s.tell(tx, r.key, r.found)
}

func (s *served[T]) remove(tx *cluster.Tx, k cluster.Key) {
	s.drop(tx, k)
	s.tell(tx, k, nil)
}

func (s *served[T]) replace(tx *cluster.Tx, list []read[T]) {
	here := make(map[cluster.Key]bool, len(list))
	all := make([]*T, 0, len(list))
	for _, r := range list {
		here[r.key] = true
		s.tell(tx, r.key, r.found)
		if r.value != nil {
			all = append(all, r.value)
		}
	}
	s.forget(tx, here)
	s.putAll(tx, all)
}
