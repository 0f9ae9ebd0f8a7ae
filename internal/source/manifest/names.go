// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/spelling"
)

// named sets the default namespace of an object and checks its name as the API does. A name that
// the API refuses is a warning. A namespace that it refuses is an error: it is unknown which one is
// meant, and its pods would stay open.
func (d *document) named(o metav1.Object, kind string) ([]cluster.Diagnostic, error) {
	if o.GetName() == "" {
		return nil, d.nameless()
	}
	field, namespace := "metadata.namespace", o.GetNamespace()
	switch {
	case kind == "Namespace":
		field, namespace = "metadata.name", o.GetName()
		o.SetNamespace("")
	case kind == "Node":
		namespace = metav1.NamespaceDefault
		o.SetNamespace("")
	case namespace == "":
		namespace = metav1.NamespaceDefault
		o.SetNamespace(namespace)
	}
	if len(validation.IsDNS1123Label(namespace)) > 0 {
		return nil, d.errorAt(d.lineOf(field), quoted(namespace)+" is no name that a namespace can have",
			"correct "+field+": at most 63 lower case letters, digits and dashes")
	}
	if len(validation.IsDNS1123Subdomain(o.GetName())) == 0 {
		return nil, nil
	}
	return []cluster.Diagnostic{{
		Severity: cluster.Warning, Kind: kind, Object: cluster.Key{Namespace: o.GetNamespace(), Name: o.GetName()},
		Field:   "metadata.name",
		Message: "the API refuses the name", Cure: "write at most 253 lower case letters, digits, dashes and dots",
	}}, nil
}

// meantElsewhere refuses an object with an unknown field that may be meant as its namespace, its
// labels, or the metadata with both. Without them it is another object, or one that the policies do
// not select, and pods stay open. Fields in rules are not included: there a namespace is that of a
// peer, and unknown fields close.
func (d *document) meantElsewhere(unknown []string, kind string) error {
	meant := []string{"metadata", "metadata.namespace", "metadata.labels"}
	switch kind {
	case "Namespace":
		meant = []string{"metadata", "metadata.labels"}
	case convert.KindPolicy, "Service":
		meant = []string{"metadata", "metadata.namespace"}
	case "Node":
		meant = nil
	}
	for _, path := range unknown {
		if kind == convert.KindPolicy && rulePart.MatchString(path) {
			continue
		}
		for _, m := range meant {
			if spelling.Distance(strings.ToLower(last(path)), last(m)) <= 2 {
				return d.errorAt(d.lineOf(path), shown(path)+" is no field: "+m+" is meant", "write it as "+m)
			}
		}
	}
	return nil
}

// last returns the last name of a path.
func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// badAddresses reports the texts in a pod's status that are not addresses: conversion leaves them
// out, so the rules do not contain the pod by them.
func (d *document) badAddresses(p *corev1.Pod) (found []cluster.Diagnostic) {
	texts := map[string]string{"status.podIP": p.Status.PodIP}
	for i, ip := range p.Status.PodIPs {
		texts[fmt.Sprintf("status.podIPs[%d].ip", i)] = ip.IP
	}
	for _, field := range slices.Sorted(maps.Keys(texts)) {
		text := texts[field]
		if a, err := netip.ParseAddr(text); text == "" || err == nil && a.Zone() == "" && !a.IsUnspecified() {
			continue
		}
		found = append(found, cluster.Diagnostic{
			Severity: cluster.Error, Kind: "Pod", Object: cluster.Key{Namespace: p.Namespace, Name: p.Name},
			Field:   field,
			Message: quoted(text) + " is no address of a pod: it is not used" + d.at(field),
			Cure:    "write it as 192.0.2.1 or 2001:db8::1, without leading zeros, zone or length",
		})
	}
	return found
}

// nameless returns the error that an object has no name, and where the name may be instead.
func (d *document) nameless() error {
	all := fields(d.json)
	if _, outside := all["name"]; outside {
		return d.errorAt(d.lineOf("name"), "name stands outside of metadata, the object has none",
			"indent name and namespace below metadata, and the rules below spec")
	}
	cure := "give it a name"
	if hasField(all["metadata"], "generateName") {
		cure += "; generateName is for the API server"
	}
	return d.errorAt(d.lineOf("metadata"), "the object has no metadata.name", cure)
}
