// SPDX-License-Identifier: Apache-2.0

// Package observe says what the agent is doing: health and readiness for
// probes, a status page for people and programs, metrics, and the logger.
//
// It stands at the end of the data path. The agent's loop tells it the result
// of every pass; it keeps the last one and answers questions about it. It
// decides nothing, changes nothing and never looks at the kernel or at the API
// server by itself, so what it says is as true as what it was told. The three
// answers are kept apart on purpose: /healthz says that the loop turns,
// /readyz that the node enforces, /statusz everything.
package observe

import (
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// Schema names the form of Status. Fields may be added under the same name;
// when one changes its meaning the name changes.
const Schema = "podwall.status/v1"

// Status is the state of one agent. Counts and revisions named without "seen"
// describe the last pass that succeeded, that is, what the kernel holds.
type Status struct {
	Schema  string    `json:"schema"` // always Schema
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`

	// Source is "manifests" or "kubernetes".
	Source string `json:"source"`
	// SourceID is the source's own name for the content that is enforced: for
	// manifests a digest of the files, else empty.
	SourceID string `json:"sourceID,omitempty"`
	// Feeds say how the source stands with each kind of object.
	Feeds []Feed `json:"feeds"`
	// Revision is the revision of the store that is enforced; SeenRevision is
	// the one that the last pass tried to enforce. They differ after an error.
	Revision     uint64 `json:"revision"`
	SeenRevision uint64 `json:"seenRevision"`

	// PolicyVersion is a resourceVersion: every policy is enforced as it was then, or later. It is empty
	// before the first pass, and for manifests.
	PolicyVersion string `json:"policyVersion,omitempty"`

	// Ready is true when the kernel enforces Revision and no problem blocks
	// readiness. NotReady holds the reasons otherwise, sorted by
	// importance.
	Ready    bool     `json:"ready"`
	NotReady []string `json:"notReady,omitempty"`

	Datapath

	Pods         int `json:"pods"` // local pods that policies can speak about
	IsolatedPods int `json:"isolatedPods"`
	// AuditedPods are open in a direction only because the policies that select them are in audit mode.
	AuditedPods int `json:"auditedPods"`
	// AuditedNames are the first of them, as namespace/name, sorted; MaxAudited at most.
	AuditedNames []string `json:"auditedNames,omitempty"`
	// WouldDeny are packets that these policies would have denied.
	WouldDeny uint64 `json:"wouldDeny"`
	Policies  int    `json:"policies"`
	Chains    int    `json:"chains"`
	Sets      int    `json:"sets"`
	Rules     int    `json:"rules"`
	Elements  int    `json:"elements"` // of all sets and maps

	// Services is the state of the service proxy, nil where it does not run.
	Services *Services `json:"services,omitempty"`

	// LastApply is the last pass, nil before the first.
	LastApply *Apply `json:"lastApply,omitempty"`
	// Programming is how long it took from the last change that is in force to the
	// kernel's answer, in seconds; 0 before the first.
	Programming float64 `json:"lastProgrammingSeconds"`
	// DriftRepairs counts differences in the kernel that this agent did not
	// make and repaired, since it started.
	DriftRepairs uint64 `json:"driftRepairs"`
	// Drops is the number of packets dropped, as far as it was read from the kernel, and
	// DropsByReason how many of them why.
	Drops         uint64 `json:"drops"`
	DropsByReason Drops  `json:"dropsByReason,omitempty"`
	// Cut is the number of connections that were ended because a change denied
	// them or gave their address to another pod, since the agent started. Refused is
	// how many connections cannot be revived now by the end that answered.
	Cut     uint64 `json:"cut"`
	Refused int    `json:"refused"`
	// Connections is how full the kernel's connection table is, nil until it was read.
	Connections *Connections `json:"connections,omitempty"`

	// Held are pods of this node that are closed for longer than a second until
	// something is done.
	Held []Held `json:"heldPods,omitempty"`

	Problems    []Problem            `json:"problems"`
	Diagnostics []cluster.Diagnostic `json:"diagnostics"`
}

// Feed is how the source stands with one kind of object. What was known before
// it was disconnected stays enforced.
type Feed struct {
	Kind string `json:"kind"` // plural resource name, or "manifests"
	// Synced is true from the first complete list on.
	Synced bool `json:"synced"`
	// Connected is true while changes arrive as they happen, and was otherwise
	// since Since.
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	// Seldom is true while it is not connected, and a part of it is read now and then.
	Seldom bool `json:"seldom,omitempty"`
	// LastWord is when the source last heard of the kind: a list, a watch that was
	// opened, an event, a bookmark. It is nil before the first.
	LastWord *time.Time `json:"lastWord,omitempty"`
	Error    string     `json:"error,omitempty"`
	Cure     string     `json:"cure,omitempty"`
}

// Datapath is how packets are judged on this node.
type Datapath struct {
	Datapath string `json:"datapath,omitempty"` // "nat", "filter", or "open" on a node that was opened on purpose
	Guard    string `json:"guard,omitempty"`    // "on" or "off"
	// GuardReason says why the guard is on or off.
	GuardReason string `json:"guardReason,omitempty"`
	// Families are the families in which policies allow anything: "ipv4",
	// "ipv6". In one that is missing, isolated pods are closed.
	Families []string `json:"families,omitempty"`
	// Unsure counts the addresses of pods of which it is not sure that policies hold,
	// by what is missing.
	Unsure map[string]int `json:"unsure,omitempty"`
	// WithoutPod are interfaces that are closed and behind which no pod is known.
	WithoutPod []string `json:"interfacesWithoutAPod,omitempty"`
}

// Apply is one pass that was meant to make the kernel agree.
type Apply struct {
	Time    time.Time `json:"time"` // when it ended
	Seconds float64   `json:"seconds"`
	Kind    string    `json:"kind"` // "full" or "delta"
	Error   string    `json:"error,omitempty"`
}

// Problem is something about the node that the operator should change. Subject
// is its identity: one problem per subject.
type Problem struct {
	Subject string `json:"subject"` // as in "bridge kube-bridge"
	Text    string `json:"text"`
	Cure    string `json:"cure,omitempty"`
	// Blocking problems mean that policies are not fully enforced; the node is
	// not ready while there is one.
	Blocking bool `json:"blocking"`
	// Since is when the problem was first set; the Observer fills it in.
	Since time.Time `json:"since"`
}
