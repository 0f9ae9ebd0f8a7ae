// SPDX-License-Identifier: Apache-2.0

// Package annotations reads kube-router's annotations of Services. What podwall's proxy does not serve it
// names, with the reason: none is ignored in silence. It changes no Service; its callers do.
package annotations

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Prefix begins the annotations that concern Services.
const Prefix = "kube-router.io/service."

// Service is what the annotations of a Service ask for, as far as it is served. Presence counts, not the
// value, as in kube-router: "false" asks for it, too.
type Service struct {
	// ExternalLocal asks for externalTrafficPolicy Local, whatever the spec says.
	ExternalLocal bool
	// SkipLoadBalancer asks not to serve the addresses of the load balancer.
	SkipLoadBalancer bool
}

// Finding is an annotation that is not served as it is written.
type Finding struct {
	// Annotation is its name, as kube-router.io/service.dsr.
	Annotation string
	// Lost is true if the Service does not do something that it was asked for; else it is a remark.
	Lost          bool
	Message, Cure string
}

// Read reads the annotations of a Service. Findings are sorted by annotation.
func Read(all map[string]string) (s Service, found []Finding) {
	for name := range all {
		if strings.HasPrefix(name, Prefix) { // most Services have none
			return read(all)
		}
	}
	return s, nil
}

func read(all map[string]string) (s Service, found []Finding) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		key, ours := strings.CutPrefix(name, Prefix)
		if !ours {
			continue
		}
		report := func(lost bool, message, cure string) {
			found = append(found, Finding{name, lost, message, cure})
		}
		switch key {
		case "local":
			s.ExternalLocal = true
		case "skiplbips":
			s.SkipLoadBalancer = true
		case "hairpin", "hairpin.externalips", // always so
			"advertise.clusterip", "advertise.externalip", "advertise.loadbalancerip": // for a router
		case "scheduler":
			if value := all[name]; value != "rr" {
				report(true, fmt.Sprintf("the scheduler %.20q is not served: each connection gets an endpoint at "+
					"random", value), "remove it; for the same endpoint each time use sessionAffinity: ClientIP")
			}
		case "schedflags":
			report(false, "flags of schedulers have no effect: each connection gets an endpoint at random", "remove it")
		case "dsr":
			report(true, "direct server return is not served: answers pass the node that the client reached",
				"remove it; to keep the client's address use externalTrafficPolicy: Local")
		default:
			report(false, "kube-router has no such annotation, or only in a later version: it has no effect",
				"correct its name, or remove it")
		}
	}
	return s, found
}
