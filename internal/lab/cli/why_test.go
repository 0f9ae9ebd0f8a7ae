// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/source/manifest"
)

// A typo in a policy is named, with the field and one change.
func TestRunSaysWhy(t *testing.T) {
	dir := manifests(t, strings.Replace(shop, "matchLabels: {app: client}", "matchLabels: {app: cleint}", 1))
	args := withAgentFlag("run", "-f", dir, "--probe", "tcp:8080", "--from", "shop/client", "--to", "shop/web", "--why")
	status, out, stderr := commandLine(t, args...)
	for _, part := range []string{"shop/client to shop/web tcp:8080: denied", "isolated by shop/web",
		"spec.ingress[0].from[0].podSelector: needs app=cleint, has app=client",
		`to allow it: set app of spec.ingress[0].from[0].podSelector to "client"`} {
		if !strings.Contains(out, part) {
			t.Errorf("without %q (status %d):\n%s%s", part, status, out, stderr)
		}
	}
	_, out, stderr = commandLine(t, append(args, "-o", "json")...)
	var report struct {
		Why []struct {
			Families    []string
			Source      string
			Explanation struct {
				Ingress struct {
					Isolating []struct{ Name string }
					Change    string
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if len(report.Why) != 1 || report.Why[0].Source != "shop/client" || len(report.Why[0].Families) != 2 ||
		report.Why[0].Explanation.Ingress.Isolating[0].Name != "web" || report.Why[0].Explanation.Ingress.Change == "" {
		t.Errorf("reasons %+v", report.Why)
	}
}

// A misspelt field is the cause, and to correct it the change.
func TestRunNamesAMisspeltFieldAsTheCause(t *testing.T) {
	dir := manifests(t, strings.Replace(shop, "matchLabels: {app: client}", "matchlabels: {app: client}", 1))
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", dir, "--probe", "tcp:8080", "--from", "shop/client",
		"--to", "shop/web", "--why")...)
	for _, part := range []string{"spec.ingress[0].from[0].podSelector.matchlabels: unknown field",
		"to allow it: correct spec.ingress[0].from[0].podSelector.matchlabels (shop/web)"} {
		if text := strings.Join(strings.Fields(out), " "); status != statusNotWritten || !strings.Contains(text, part) {
			t.Errorf("without %q (status %d):\n%s%s", part, status, out, stderr)
		}
	}
}

// A packet that went otherwise than it is explained is a difference.
func TestAnExplanationThatTheKernelContradictsIsADifference(t *testing.T) {
	w, ends := completed(t, shop)
	v := &view{ends: ends, ports: []port{{6, 8080}}, answers: map[flow]trial.Answer{}, scope: all(ends)}
	src := slices.IndexFunc(ends, func(e end) bool { return e.name == "shop/client" })
	dst := slices.IndexFunc(ends, func(e end) bool { return e.name == "shop/web" })
	f := flow{false, 0, src, dst}
	v.flows = []flow{f}
	for verdict, wrong := range map[trial.Verdict]bool{trial.Allowed: false, trial.Denied: true, trial.Unknown: false} {
		v.answers[f] = trial.Answer{Verdict: verdict}
		_, differences, err := v.explain(w.Snapshot, nil)
		if err != nil || (len(differences) > 0) != wrong {
			t.Errorf("verdict %s: differences %q, %v", verdict, differences, err)
		}
	}
}

// completed returns a cluster of manifests and its ends.
func completed(t *testing.T, text string) (*complete.World, []end) {
	t.Helper()
	from := manifest.From{Paths: []string{manifest.Stdin}, Text: []byte(text)}
	loaded, err := manifest.Load(from)
	if err != nil {
		t.Fatal(err)
	}
	in, err := complete.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	w, err := complete.Build(in, loaded, complete.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return w, endsOf(w.Snapshot.Pods, nil, in.Made)
}

// What arrives only because of audit mode is marked, and counts as no change.
func TestRunMarksWhatOnlyAuditModeAllows(t *testing.T) {
	dir := manifests(t, strings.Replace(shop, "metadata: {name: web, namespace: shop}\nspec:\n  podSelector",
		"metadata: {name: web, namespace: shop, annotations: {podwall.io/mode: audit}}\nspec:\n  podSelector", 1))
	args := withAgentFlag("run", "-f", dir, "--probe", "tcp:8080,tcp:9090", "--from", "default", "--from", "shop/client", "--to", "shop/web")
	rows := func(out string) (marks []string) {
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); strings.Contains(line, "(machine)") {
				marks = append(marks, f[1]+" "+f[len(f)-1])
			}
		}
		return marks
	}
	status, out, stderr := commandLine(t, append(args, "--why")...)
	want := []string{"default/stranger a", "shop/client ✓", "default/stranger a", "shop/client a"}
	if got := rows(out); status != 0 || !slices.Equal(got, want) || strings.Count(out, "0 changed by the policies") != 2 ||
		!strings.Contains(out, "a: arrived, only because policies are in audit mode\n") {
		t.Errorf("exit status %d, rows %q, want %q:\n%s%s", status, got, want, out, stderr)
	}
	_, out, stderr = commandLine(t, append(args, "--why", "-o", "json")...)
	var report struct{ Audited []auditedFlow }
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Audited) != 6 || report.Audited[0].Destination != "shop/web" {
		t.Errorf("%v: %+v\n%s", err, report.Audited, stderr)
	}
	_, out, _ = commandLine(t, args...)
	if got := rows(out); strings.Contains(out, "audit mode") || len(got) == 0 || slices.Contains(got, "default/stranger a") {
		t.Errorf("without --why:\n%s", out)
	}
}
