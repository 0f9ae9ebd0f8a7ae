// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

func agentWith(node, namespace string, args ...string) corev1.Pod {
	yes := true
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "podwall-" + node,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Controller: &yes}}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "other", Args: []string{"--policy-audit=no"}},
			{Name: agentContainer, Command: []string{agentProgram}, Args: args}}}}
}

// What audit mode means comes from the agents' flag; where that is not known, it is said what was assumed.
func TestAuditModeIsThatOfTheAgents(t *testing.T) {
	asks := &manifest.Result{Policies: []*cluster.Policy{{Audit: true}}}
	whole := &manifest.Result{Namespaces: []*cluster.Namespace{{Mode: cluster.ModeAudit}}}
	here := func(node string, args ...string) corev1.Pod { return agentWith(node, agentsNamespace, args...) }
	for name, c := range map[string]struct {
		agents      []corev1.Pod
		read        *manifest.Result
		flag        string
		value, note string
	}{
		"the flag":           {[]corev1.Pod{here("n1", "-v=1", "--policy-audit=forbid")}, asks, "", auditForbid, ""},
		"in two words":       {[]corev1.Pod{here("n1", "--policy-audit", "allow-namespaces")}, whole, "", auditNamespaces, ""},
		"the last one":       {[]corev1.Pod{here("n1", "--policy-audit=allow", "-policy-audit=forbid")}, asks, "", auditForbid, ""},
		"without it":         {[]corev1.Pod{here("n1"), here("n2", "policy-audit=forbid")}, asks, "", auditAllow, ""},
		"our flag":           {[]corev1.Pod{here("n1", "--policy-audit=forbid")}, asks, auditAllow, auditAllow, ""},
		"they differ":        {[]corev1.Pod{here("n1"), here("n2", "--policy-audit=forbid")}, asks, "", auditForbid, "(allow, forbid)"},
		"a value not known":  {[]corev1.Pod{here("n1", "--policy-audit=$(X)")}, asks, "", auditAllow, "--policy-audit=$(X) is not known"},
		"of another":         {[]corev1.Pod{agentWith("n1", "evil", "--policy-audit=forbid")}, asks, "", auditAllow, "no agent was seen"},
		"none":               {nil, whole, "", auditAllow, "no agent was seen"},
		"none, and no audit": {nil, &manifest.Result{}, "", auditAllow, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(Streams{})
			s.audit = c.flag
			value, note := s.auditMode((&reading{agents: c.agents}).agentsIn(s.agents), c.read)
			if value != c.value || (note == "") != (c.note == "") || !strings.Contains(note, c.note) {
				t.Errorf("%s, note %q", value, note)
			}
		})
	}
	if a := allowance(auditForbid); a.Audit || a.AuditNamespaces {
		t.Errorf("forbid allows %+v", a)
	}
}
