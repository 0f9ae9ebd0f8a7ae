// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// All agents of a cluster agree without a word on who writes about a policy, and no
// node has much more to write than another.
func TestThreeOfAllNodesHaveATurn(t *testing.T) {
	var nodes []string
	for i := range 100 {
		nodes = append(nodes, fmt.Sprint("node", i))
	}
	load := map[string]int{}
	const policies = 300
	for i := range policies {
		policy, taken := cluster.Key{Namespace: "shop", Name: fmt.Sprint("p", i)}, map[int]string{}
		for _, n := range nodes {
			turn := turnOf(n, policy, nodes)
			if turn < 0 {
				continue
			}
			if other := taken[turn]; other != "" {
				t.Fatalf("turn %d of %s belongs to %s and %s", turn, policy, other, n)
			}
			taken[turn] = n
			load[n]++
		}
		if len(taken) != speakers || taken[0] == "" || taken[speakers-1] == "" {
			t.Fatalf("turns of %s: %v", policy, taken)
		}
	}
	for _, n := range nodes {
		if load[n] > 6*speakers*policies/len(nodes) {
			t.Errorf("%s writes about %d of %d policies", n, load[n], policies)
		}
	}
	if turn := turnOf("elsewhere", cluster.Key{Name: "p"}, nodes); turn >= 0 {
		t.Errorf("a node that nobody knows has turn %d", turn)
	}
}

func about(severity cluster.Severity, message string) cluster.Diagnostic {
	return cluster.Diagnostic{Severity: severity, Kind: "NetworkPolicy", Object: cluster.Key{Namespace: "shop", Name: "web"},
		Field: "spec.ingress[0]", Message: message, Cure: "mend it"}
}

func TestAnEventNamesThePolicyAndTheWorstFirst(t *testing.T) {
	p := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: "web"}, UID: "u", Version: "7"}
	now := time.Unix(1_000_000, 0)
	e := eventAbout(p, []cluster.Diagnostic{about(cluster.Warning, "odd"), about(cluster.Error, "wrong")}, "n1", now)
	if want := "spec.ingress[0]: wrong; mend it | spec.ingress[0]: odd; mend it"; e.Message != want {
		t.Errorf("the text is %q, want %q", e.Message, want)
	}
	if o := e.InvolvedObject; e.Reason != reasonError || e.Type != corev1.EventTypeWarning || o.Name != "web" || o.UID != "u" ||
		o.APIVersion != "networking.k8s.io/v1" || e.Namespace != "shop" || !strings.HasPrefix(e.Name, "web.") {
		t.Errorf("the Event is %+v", e)
	}
	warning := eventAbout(p, []cluster.Diagnostic{about(cluster.Warning, "odd")}, "n1", now)
	if warning.Reason != reasonWarning {
		t.Errorf("of a warning the reason is %s", warning.Reason)
	}
	if other := eventAbout(p, []cluster.Diagnostic{about(cluster.Warning, "odd")}, "n2", now.Add(time.Hour)); other.Name != warning.Name {
		t.Error("another node, or the next process, gives it another name")
	}
	changed := *p
	changed.Version = "8"
	if other := eventAbout(&changed, []cluster.Diagnostic{about(cluster.Warning, "odd")}, "n1", now); other.Name == warning.Name {
		t.Error("after a change of the policy it has the same name")
	}
}

func TestAnEventIsBounded(t *testing.T) {
	p := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: strings.Repeat("a.", 126) + "b"}}
	var many []cluster.Diagnostic
	for i := range 100 {
		many = append(many, about(cluster.Error, fmt.Sprintf("%d %s", i, strings.Repeat("ä", 30))))
	}
	for _, findings := range [][]cluster.Diagnostic{many, {about(cluster.Error, strings.Repeat("ä", 3000))}, {about(cluster.Error, strings.Repeat("ä", 3000)), many[0]}} {
		e := eventAbout(p, findings, "n1", time.Now())
		if len(e.Message) > maxEventText || len(e.Name) > maxName || !utf8.ValidString(e.Message) || strings.Contains(e.Name, "..") {
			t.Errorf("name of %d bytes, text of %d: %q %q", len(e.Name), len(e.Message), e.Name, e.Message)
		}
		if len(findings) > 1 && !strings.HasSuffix(e.Message, " more") {
			t.Errorf("what is left out is not counted: %q", e.Message)
		}
	}
}
