// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"strings"
	"testing"
)

// The checks see a lie, and let the truth pass.
func TestTheChecksSeeALie(t *testing.T) {
	tests := []struct {
		language, text string
		lie            string // part of the complaint; empty for the truth
	}{
		{"sh", "podwall-agent --manifests /m", ""},
		{"sh", "podwall-agent --manifest /m", "did you mean --manifests"},
		{"sh", "podwall-agent --unknown-pods=ajar", "ajar"},
		{"sh", "NODE_NAME=x bin/podwall-lab run -f /tmp/try \\\n  --wiring bridge", ""},
		{"sh", "podwall-lab run -f d --wirings bridge", "unknown flag"},
		{"sh", "podwall-lab rum -f d", "rum"},
		{"sh", "podwall-lab bench sockets", "sockets"},
		{"sh", "sudo podwall-gate install", "nobody judges sudo"},
		{"sh", "podwall-gate install --wach", "wach"},
		{"sh", "podwall-gate instal", "instal"},
		{"sh", "make build kubeapi", ""},
		{"sh", "make builds", "no target builds"},
		{"sh", "make e2e E2F=list", "no variable E2F"},
		{"sh", "helm install podwall deploy/chart/podwall --namespace x", ""},
		{"sh", "helm install podwall deploy/chart/podwal", "nothing at"},
		{"sh", "helm install podwall --namespaces x", "--namespaces"},
		{"sh", "kubectl exec POD -- podwall-agent --opennode=x", "opennode"},
		{"sh", "for p in $(ls a); do crictl exec \"$p\" podwall-agent --frob; done", "frob"},
		{"sh", "cp examples/demo/missing.yaml /tmp", "nothing at examples/demo/missing.yaml"},
		{"sh", "echo 'never closed", "not for a shell"},
		{"console", "node1# make frob\npodwall-agent --frob is what it printed\n", "no target frob"},
		{"yaml", "metrics: {enabled: true}", ""},
		{"yaml", "metrics: {enable: true}", "no value metrics.enable"},
		{"yaml", "a: 1\na: 2", "already set"},
		{"yaml", "groups: [{name: a, rules: [{alert: b, expr: c}]}]", ""},
		{"yaml", "groups: [{name: a, rules: [{alert: b, exp: c}]}]", "exp"},
		{"json", `{"type": "podwall-gate", "timeout": "5s"}`, ""},
		{"json", `{"type": "podwall-gate", "timeOut": "5 apples"}`, "apples"},
		{"json", `{"type": "podwall-gate", "time": "5s"}`, "unknown field"},
		{"text", "a ──► b", ""},
		{"text", "podwall-agent --frob", "say sh"},
		{"", "make build", "a block of \"\""},
		{"not closed", "", "not closed"},
	}
	for _, tt := range tests {
		t.Run(tt.language+" "+tt.text, func(t *testing.T) {
			var said strings.Builder
			for _, err := range wrong(b(tt.language, tt.text)) {
				said.WriteString(err.Error())
			}
			if got := said.String(); (got == "") != (tt.lie == "") || !strings.Contains(got, tt.lie) {
				t.Errorf("said %q, want %q", got, tt.lie)
			}
		})
	}
}

func b(language, text string) block { return block{where: "page.md:1", language: language, text: text} }

func TestTheChecksSeeALieInTheText(t *testing.T) {
	flags := allFlags(t)
	for span, lie := range map[string]string{
		"--manifests DIR":              "",
		"--manifest DIR":               "no program has the flag --manifest",
		"--run-firewall=true":          "",
		"podwall-lab run|ruleset -f D": "",
		"podwall-lab run|rulset -f D":  "rulset",
		"make bild":                    "no target bild",
		"internal/netpol/ruleset":      "",
		"internal/nft":                 "nothing at internal/nft",
		"examples/seed/*.yaml":         "",
		"anything else":                "",
	} {
		err := wrongSpan(flags, span)
		if (err == nil) != (lie == "") || err != nil && !strings.Contains(err.Error(), lie) {
			t.Errorf("%s: said %v, want %q", span, err, lie)
		}
	}
	if got := unknownMetrics("`podwall_ready` and podwall_redy, podwall_x_bucket", []string{"podwall_ready", "podwall_x"}); len(got) != 1 || got[0] != "podwall_redy" {
		t.Errorf("unknown metrics %v, want podwall_redy", got)
	}
	if keys := statusKeys(t); len(keys) < 40 {
		t.Errorf("only %d keys of the status: %v", len(keys), keys)
	}
}
