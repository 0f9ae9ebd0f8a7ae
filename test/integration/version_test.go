// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strconv"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/observe"
)

// Whoever waits for a policy compares its version with the agent's. The agent reaches that of each write, also
// of one that changes no rule and of a deletion, and says so to root on the node.
func TestTheVersionOfAPolicyIsReached(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	a := w.agent("node1").ready()
	policies := w.api.NetworkingV1().NetworkPolicies("nsa")
	number := func(text string) uint64 {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("version %q: %v", text, err)
		}
		return n
	}
	reached := func(p *networkingv1.NetworkPolicy, err error, what string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		a.await(what, func() bool { return number(a.status().PolicyVersion) >= number(p.ResourceVersion) })
	}
	p := w.parsePolicy([]byte(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: first, namespace: nsa}
spec: {podSelector: {}, policyTypes: [Ingress]}
`))
	made, err := policies.Create(t.Context(), p, metav1.CreateOptions{})
	reached(made, err, "the policy")
	before := a.status().Revision
	made.Labels = map[string]string{"a": "b"}
	labelled, err := policies.Update(t.Context(), made, metav1.UpdateOptions{})
	reached(labelled, err, "a label")
	if now := a.status().Revision; now != before {
		t.Errorf("a label makes revision %d of %d", now, before)
	}
	labelled.Spec.PolicyTypes = append(labelled.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	changed, err := policies.Update(t.Context(), labelled, metav1.UpdateOptions{})
	reached(changed, err, "another rule")

	cmd := exec.CommandContext(t.Context(), agentProgram(t), "--show=enforced")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := w.bed.Node("node1").NS.Start(cmd); err != nil {
		t.Fatal(err)
	}
	var e observe.Enforced
	if err := cmd.Wait(); err != nil || json.Unmarshal(out.Bytes(), &e) != nil || !e.Ready || e.Node != "node1" ||
		number(e.PolicyVersion) < number(changed.ResourceVersion) || e.Isolated == 0 {
		t.Errorf("the agent says %v: %s", err, &out)
	}
}
