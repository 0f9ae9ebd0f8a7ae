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
	// Scheduler is the scheduler of IPVS that is asked for, one of kube-router's; empty if none is.
	Scheduler string
	// Options are the scheduler's, as bits.
	Options uint8
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
			if s.Scheduler = all[name]; !slices.Contains(schedulers(), s.Scheduler) {
				report(true, fmt.Sprintf("there is no scheduler %.20q: each connection gets an endpoint as without it",
					s.Scheduler), "use one of "+strings.Join(schedulers(), ", "))
				s.Scheduler = ""
			}
		case "schedflags":
			var unknown []string
			if s.Options, unknown = flags(all[name]); unknown != nil {
				report(true, fmt.Sprintf("there is no flag %.20q of a scheduler: it has no effect", unknown[0]),
					"use flag-1, flag-2 and flag-3, with commas; what they mean is the scheduler's")
			}
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

// schedulers are those that kube-router has.
func schedulers() []string { return []string{"rr", "lc", "dh", "sh", "mh"} }

// flags reads a list of flags of a scheduler, with kube-router's names or with those of ipvsadm.
func flags(list string) (bits uint8, unknown []string) {
	for name := range strings.SplitSeq(list, ",") {
		switch name = strings.TrimSpace(name); name {
		case "":
		case "flag-1", "sh-fallback", "mh-fallback":
			bits |= 1
		case "flag-2", "sh-port", "mh-port":
			bits |= 2
		case "flag-3":
			bits |= 4
		default:
			unknown = append(unknown, name)
		}
	}
	return bits, unknown
}
