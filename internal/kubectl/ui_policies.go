// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/logging"
)

// policyValue is a policy with what was found about it.
type policyValue struct {
	Name     string   `json:"name"`
	Isolates []string `json:"isolates"`
	// Pods is how many pods it selects.
	Pods int `json:"pods"`
	// Audit is true if it is not enforced.
	Audit    bool     `json:"audit"`
	Findings []string `json:"findings"`
	Version  string   `json:"version,omitempty"`
}

// maxPolicies is how many policies an answer has; maxFindings how many findings of each.
const (
	maxPolicies = 100
	maxFindings = 20
)

// policiesOf answers with the policies whose names have a text, from position first on.
func (sc *uiScene) policiesOf(_ context.Context, q url.Values) (any, error) {
	first, err := number(q, "first")
	if err != nil {
		return nil, err
	}
	sc.lintOnce()
	match := strings.ToLower(strings.TrimSpace(q.Get("match")))
	var all []*cluster.Policy
	for _, p := range sc.snap.Policies {
		if strings.Contains(strings.ToLower(p.Key.String()), match) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
	first = min(first, len(all))
	shown := all[first:min(first+maxPolicies, len(all))]
	pods := sc.selected(shown)
	list := []policyValue{}
	for _, p := range shown {
		v := policyValue{Name: p.Key.String(), Isolates: []string{}, Pods: pods[p], Audit: p.Audit, Version: p.Version,
			Findings: []string{}}
		if p.IsolatesIngress {
			v.Isolates = append(v.Isolates, "ingress")
		}
		if p.IsolatesEgress {
			v.Isolates = append(v.Isolates, "egress")
		}
		found := sc.findings[p.Key]
		for _, text := range found[:min(len(found), maxFindings)] {
			v.Findings = append(v.Findings, logging.Plain(text))
		}
		list = append(list, v)
	}
	return struct {
		Policies []policyValue `json:"policies"`
		Total    int           `json:"total"`
		First    int           `json:"first"`
	}{list, len(all), first}, nil
}

// selected counts the pods that policies select.
func (sc *uiScene) selected(policies []*cluster.Policy) map[*cluster.Policy]int {
	of := map[string][]*cluster.Policy{}
	for _, p := range policies {
		of[p.Key.Namespace] = append(of[p.Key.Namespace], p)
	}
	count := map[*cluster.Policy]int{}
	for _, pod := range sc.snap.Pods {
		for _, p := range of[pod.Key.Namespace] {
			if pod.Networked() && p.Subject.Matches(pod.Labels) {
				count[p]++
			}
		}
	}
	return count
}
