// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Held is a pod of this node that is closed until something is done.
type Held struct {
	Pod   string    `json:"pod"` // "namespace/name"
	Why   HeldWhy   `json:"why"`
	Since time.Time `json:"since"`
}

// HeldWhy says what a pod waits for. It is the value of a label, too.
type HeldWhy string

// What a pod can wait for.
const (
	HeldConnections HeldWhy = "connections"
	HeldElsewhere   HeldWhy = "elsewhere"
	HeldPolicies    HeldWhy = "policies"
)

func heldWhys() []string {
	return []string{string(HeldConnections), string(HeldElsewhere), string(HeldPolicies)}
}

// String returns the reason for people.
func (w HeldWhy) String() string {
	switch w {
	case HeldConnections:
		return "connections from before the pod are looked for"
	case HeldElsewhere:
		return "routes lead elsewhere with its address"
	case HeldPolicies:
		return "policies of its namespace wait, which has used up its share of the agent's time"
	}
	return string(w)
}

// heldAfter is how long a pod is held before it is named. Less is usual.
const heldAfter = time.Second

// SetHeld records the pods that are held, sorted by name. They are named when they
// have been for a second.
func (o *Observer) SetHeld(pods []Held) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = slices.Clone(pods)
}

// longHeld returns the pods that are held for long enough to be named.
func (o *Observer) longHeld(now time.Time) (list []Held) {
	for _, h := range o.held {
		if now.Sub(h.Since) >= heldAfter {
			list = append(list, h)
		}
	}
	return list
}

func (o *Observer) countHeld(why string) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, h := range o.longHeld(time.Now()) {
		if string(h.Why) == why {
			n++
		}
	}
	return float64(n)
}

// heldText names the first of the pods for people.
func heldText(pods []Held) string {
	const shown = 5
	var list []string
	for _, h := range pods[:min(shown, len(pods))] {
		list = append(list, fmt.Sprintf("%s since %s (%s)", h.Pod, h.Since.Format(time.RFC3339), h.Why))
	}
	if more := len(pods) - shown; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, ", ")
}
