// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// With a rule for each pair of peer and port these were 250,000 rules.
func TestARulesetGrowsWithTheSumOfPeersAndPorts(t *testing.T) {
	const n = 500
	text := strings.Builder{}
	text.WriteString(`{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {nodeName: node1, containers: [{name: c}]},
 status: {podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.5}, {ip: "fd00:244::5"}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: giant, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from:
`)
	for i := range n {
		fmt.Fprintf(&text, "    - ipBlock: {cidr: 20.%d.%d.0/24}\n", i>>7, i<<1&255)
	}
	text.WriteString("    ports:\n")
	for i := range n {
		fmt.Fprintf(&text, "    - {port: %d, endPort: %d}\n", 1+100*i, 50+100*i)
	}
	file := filepath.Join(t.TempDir(), "giant.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, stderr := commandLine(t, "ruleset", "-f", file, "--node", "node1")
	if lines := strings.Count(out, "\n"); status != 0 || lines < n || lines > 20_000 {
		t.Errorf("exit status %d, %d lines, want %d to 20,000; %s", status, lines, n, stderr)
	}
	if !strings.Contains(out, "20.3.230.0/24") || !strings.Contains(out, "49901-49950") {
		t.Error("the last range is missing")
	}
}
