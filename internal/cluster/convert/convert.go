// SPDX-License-Identifier: Apache-2.0

// Package convert turns API objects into cluster values. It applies the defaults of the API and
// parses every text (addresses, prefixes, selectors, ports), so that later packages parse nothing.
//
// Anything that it cannot understand fails closed: the smallest such part matches nothing, the
// policy still isolates, and a diagnostic names the object, the field and the cure. A warning means
// that the meaning was clear but probably not intended.
//
// It stands between the sources (packages kube and manifest) and package cluster. It is pure: no
// I/O, no clock, no logger.
package convert

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// The Kinds of diagnostics.
const (
	KindPolicy  = "NetworkPolicy"
	KindService = "Service"
	KindSlice   = "EndpointSlice"
)

// Namespace converts a namespace. The label kubernetes.io/metadata.name is not added or checked:
// the API server sets it.
func Namespace(n *corev1.Namespace) *cluster.Namespace {
	return &cluster.Namespace{Name: n.Name, Labels: cluster.NewLabels(n.Labels), Mode: modeOf(n)}
}

// Policy converts a NetworkPolicy. The result is never nil: a policy that
// cannot be understood at all still isolates. The diagnostics are in the order
// of the fields.
func Policy(np *networkingv1.NetworkPolicy) (*cluster.Policy, []cluster.Diagnostic) {
	r := &reader{kind: KindPolicy, object: cluster.Key{Namespace: np.Namespace, Name: np.Name}}
	p := &cluster.Policy{Key: r.object, UID: string(np.UID), Version: np.ResourceVersion}
	p.Audit, p.OwnMode = r.mode(np)
	p.IsolatesIngress, p.IsolatesEgress = r.directions(&np.Spec)
	subject, ok := r.selector("spec.podSelector", &np.Spec.PodSelector,
		"the policy isolates every pod of its namespace and allows nothing")
	if !ok {
		// The selected pods are unknown. A pod that should be isolated must not be left open, and a
		// pod that should not be selected must not be opened further than other policies open it.
		p.Subject = cluster.Everything()
		return p, r.findings()
	}
	if p.Subject, ok = r.subject(subject); !ok || !r.affordable(&np.Spec) {
		return p, r.findings()
	}
	if p.IsolatesIngress {
		p.Ingress = r.rules("spec.ingress", "from", ingressRules(np.Spec.Ingress))
	}
	if p.IsolatesEgress {
		p.Egress = r.rules("spec.egress", "to", egressRules(np.Spec.Egress))
	}
	if size := p.Size(); size > cluster.MaxPolicyEntries {
		r.tooLarge(size)
		p.Ingress, p.Egress = nil, nil
	}
	return p, r.findings()
}

// reader collects the faults of one object.
type reader struct {
	kind   string
	object cluster.Key
	found  []cluster.Diagnostic
	within []entry // the entries of lists that are being read, the outer ones first
}

// entry is an entry of a list.
type entry struct {
	list  string
	index int
}

// each reads n entries of a list. In f the fields of faults are relative to the entry. Their paths are put
// together only if there is a fault: large policies have many entries.
func (r *reader) each(list string, n int, f func(i int)) {
	r.within = append(r.within, entry{list: list})
	last := len(r.within) - 1
	for i := range n {
		r.within[last].index = i
		f(i)
	}
	r.within = r.within[:last]
}

// appendOf appends one of up to n values, with room for all of them: nil stays nil if there is none.
func appendOf[T any](n int, list []T, v T) []T {
	if list == nil {
		list = make([]T, 0, n)
	}
	return append(list, v)
}

func (r *reader) fail(field, message, cure string) {
	r.add(cluster.Error, field, message, cure)
}

func (r *reader) warn(field, message, cure string) {
	r.add(cluster.Warning, field, message, cure)
}

func (r *reader) add(s cluster.Severity, field, message, cure string) {
	for _, e := range slices.Backward(r.within) {
		field = fmt.Sprintf("%s[%d]%s", e.list, e.index, field)
	}
	r.found = append(r.found, cluster.Diagnostic{
		Severity: s, Kind: r.kind, Object: r.object, Field: field, Message: message, Cure: cure,
	})
}
