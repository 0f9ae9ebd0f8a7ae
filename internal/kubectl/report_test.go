// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A policy with a field that is misspelt isolates every pod it may have meant, and the
// change is to correct the field.
func TestAMisspeltFieldIsInTheAnswer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.yaml")
	const text = `
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: a, labels: {app: c}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s, namespace: a, labels: {app: s}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec: {podSelecter: {matchLabels: {app: s}}, ingress: [{}]}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, said := commandLine(t, "explain", "-f", file, "-n", "a", "c", "s:80")
	if status != statusNotWritten || !strings.Contains(out, "to allow it: correct spec.podSelecter") {
		t.Errorf("exit status %d\n%s%s", status, out, said)
	}
	if status, _, _ := commandLine(t, "can", "-f", file, "-n", "a", "c", "s:80"); status != statusNo {
		t.Errorf("can: exit status %d", status)
	}
}
