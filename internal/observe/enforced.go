// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"encoding/json"
	"net/http"
)

// EnforcedSchema names the form of Enforced.
const EnforcedSchema = "podwall.enforced/v1"

// maxReasons is how many reasons and problems Enforced has.
const maxReasons = 20

// Enforced is the part of the status that is asked of all nodes of a cluster at once. Its size is bounded.
type Enforced struct {
	Schema        string `json:"schema"` // always EnforcedSchema
	Node          string `json:"node"`
	Version       string `json:"version"` // of the agent
	PolicyVersion string `json:"policyVersion,omitempty"`
	Ready         bool   `json:"ready"`
	// NotReady are reasons, and Problems those that do not block; the first of them, each cut.
	NotReady []string `json:"notReady,omitempty"`
	Problems []string `json:"problems,omitempty"`
	Pods     int      `json:"pods"`
	Isolated int      `json:"isolatedPods"`
	Audited  int      `json:"auditedPods"`
	// Held are pods of the node that are closed until something is done.
	Held int `json:"heldPods"`
}

// enforced returns the part of a status.
func (s Status) enforced() Enforced {
	e := Enforced{Schema: EnforcedSchema, Node: s.Node, Version: s.Version,
		PolicyVersion: s.PolicyVersion, Ready: s.Ready,
		Pods: s.Pods, Isolated: s.IsolatedPods, Audited: s.AuditedPods, Held: len(s.Held)}
	for _, why := range s.NotReady[:min(len(s.NotReady), maxReasons)] {
		e.NotReady = append(e.NotReady, short(why))
	}
	for _, p := range s.Problems {
		if !p.Blocking && len(e.Problems) < maxReasons {
			e.Problems = append(e.Problems, short(p.Subject+": "+p.Text))
		}
	}
	return e
}

// short cuts a text.
func short(s string) string {
	const longest = 300
	r := []rune(s)
	if len(r) <= longest {
		return s
	}
	return string(r[:longest-1]) + "…"
}

func (o *Observer) serveEnforced(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o.Status().enforced()) // the client went away
}
