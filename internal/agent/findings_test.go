// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// A finding is said once, and not again while it holds; an author who changes his
// policies all the time writes no log of others full.
func TestFindingsAreSaidOnce(t *testing.T) {
	var f findings
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	now := time.Unix(1_000_000, 0)
	finding := func(name, message string) cluster.Diagnostic {
		return cluster.Diagnostic{Severity: cluster.Error, Kind: "NetworkPolicy", Object: cluster.Key{Namespace: "shop", Name: name}, Message: message, Cure: "mend it"}
	}
	said := func(list ...cluster.Diagnostic) int {
		out.Reset()
		f.say(now, list, log)
		return strings.Count(out.String(), "\n")
	}
	a, b := finding("a", "one"), finding("b", "two")
	a.Severity = cluster.Warning
	if n := said(a, b); n != 2 || !strings.Contains(out.String(), "level=WARN") || !strings.Contains(out.String(), "object=shop/a") || !strings.Contains(out.String(), `cure="mend it"`) {
		t.Errorf("%d lines:\n%s", n, &out)
	}
	if n := said(a, b); n != 0 {
		t.Errorf("said again:\n%s", &out)
	}
	if n := said(b); n != 1 || !strings.Contains(out.String(), "gone") {
		t.Errorf("of one that is gone:\n%s", &out)
	}
	lines := 0
	for i := range 500 {
		now = now.Add(100 * time.Millisecond) // fifty seconds in all
		lines += said(finding("b", fmt.Sprint("number ", i)))
	}
	if lines > 2*maxSaidOfOne { // as many say that one is gone
		t.Errorf("%d lines about 500 findings of one namespace", lines)
	}
	other := finding("c", "another's")
	other.Object.Namespace = "other"
	if n := said(finding("b", "number 499"), other); n != 1 || !strings.Contains(out.String(), "object=other/c") {
		t.Errorf("beside a namespace that says too much:\n%s", &out)
	}
	now = now.Add(findingsPeriod)
	if n := said(finding("b", "number 499"), other); n != 2 || !strings.Contains(out.String(), "more findings") || !strings.Contains(out.String(), "number 499") {
		t.Errorf("after the period:\n%s", &out)
	}
}

// What is said about a policy its author is told, too: all that is found about it, and
// as seldom as it is said in the log.
func TestAuthorsAreToldWhatTheLogSays(t *testing.T) {
	told := map[string]int{}
	times := 0
	var amended []int
	f := findings{announce: func(policy cluster.Key, all []cluster.Diagnostic) { told[policy.String()], times = len(all), times+1 },
		amend: func(policy cluster.Key, all []cluster.Diagnostic) { amended = append(amended, len(all)) }}
	log, now := slog.New(slog.DiscardHandler), time.Unix(1_000_000, 0)
	finding := func(kind, name, message string) cluster.Diagnostic {
		return cluster.Diagnostic{Severity: cluster.Error, Kind: kind, Object: cluster.Key{Namespace: "shop", Name: name}, Message: message}
	}
	a, b := finding("NetworkPolicy", "web", "one"), finding("NetworkPolicy", "web", "two")
	f.say(now, []cluster.Diagnostic{a, finding("Pod", "web", "a pod's"), finding("Pod", "db", "a pod's")}, log)
	if times != 1 || told["shop/web"] != 1 {
		t.Errorf("told %d times: %v", times, told)
	}
	f.say(now, []cluster.Diagnostic{a, b}, log)
	if times != 2 || told["shop/web"] != 2 {
		t.Errorf("told %d times: %v, want all that is found about the policy", times, told)
	}
	f.say(now, []cluster.Diagnostic{a, b}, log)
	f.say(now, []cluster.Diagnostic{b}, log)
	if times != 2 {
		t.Errorf("told %d times: %v, although nothing is new", times, told)
	}
	f.say(now, []cluster.Diagnostic{finding("Pod", "web", "a pod's")}, log)
	f.say(now, nil, log)
	if !slices.Equal(amended, []int{1, 0}) { // findings left of two, then of one
		t.Errorf("what the author is not told yet was corrected to %d findings", amended)
	}
	for i := range 500 {
		f.say(now, []cluster.Diagnostic{finding("NetworkPolicy", "web", fmt.Sprint("number ", i))}, log)
	}
	if times > maxSaidOfOne {
		t.Errorf("told %d times of 500 edits", times)
	}
}
