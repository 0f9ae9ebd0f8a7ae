// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The versions are those of the API server: each write of a policy is newer, also one that changes no rule. Who
// may not read them is told so.
func TestVersionsOfPoliciesAreThoseOfTheServer(t *testing.T) {
	s := liveServer(t)
	clients := adminOf(t, s)
	f := factsOf(t, s.Kubeconfig)
	version, policies, err := f.newest(t.Context())
	if err != nil || policies != 2 || version == 0 {
		t.Fatalf("version %d, %d policies, %v", version, policies, err)
	}
	p, err := clients.NetworkingV1().NetworkPolicies("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Annotations = map[string]string{"podwall.io/mode": "audit"}
	if _, err := clients.NetworkingV1().NetworkPolicies("shop").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	own, annotations, namespace, err := f.policy(t.Context(), "shop", "web")
	if err != nil || own <= version || annotations["podwall.io/mode"] != "audit" || namespace["podwall.io/mode"] != "" {
		t.Errorf("after a change: version %d after %d, %v, %v, %v", own, version, annotations, namespace, err)
	}
	if newest, _, err := f.newest(t.Context()); err != nil || newest != own {
		t.Errorf("the newest version is %d, want %d; %v", newest, own, err)
	}
	if names, err := f.nodes(t.Context()); err != nil || strings.Join(names, " ") != "node1 node2" {
		t.Errorf("nodes %q, %v", names, err)
	}
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	for line, want := range map[string]string{"wait shop/web": "cannot get resource", "status": "looking for agents"} {
		status, out, said := commandLine(t, append(strings.Fields(line), "--kubeconfig", tenant)...)
		if said = strings.ReplaceAll(said, "\n  ", " "); status != statusUsage || out != "" || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d, %q\n%s", line, status, out, said)
		}
	}
	status, _, said := commandLine(t, "wait", "shop/none", "--kubeconfig", s.Kubeconfig)
	if said = strings.ReplaceAll(said, "\n  ", " "); status != statusUsage || !strings.Contains(said, `"none" not found`) {
		t.Errorf("a policy that does not exist: exit status %d\n%s", status, said)
	}
}

func factsOf(t *testing.T, kubeconfig string) clusterFacts {
	t.Helper()
	s := newSource(Streams{})
	*s.cluster.KubeConfig = kubeconfig
	f, err := s.facts()
	if err != nil {
		t.Fatal(err)
	}
	return f
}
