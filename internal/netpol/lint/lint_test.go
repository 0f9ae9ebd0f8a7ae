// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/lint"
	"github.com/podwall/podwall/internal/source/manifest"
)

const town = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: prod, labels: {team: blue}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: empty, labels: {team: none}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: prod, labels: {app: database}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: prod, labels: {app: old}}, status: {phase: Succeeded}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: prod, labels: {app: agent}}, spec: {hostNetwork: true}}
---
`

// question is a policy and what is found about it.
type question struct {
	namespace, spec string
	kinds           []lint.Kind
	says            string // parts, with | between them
}

func questions() map[string]question {
	return map[string]question{
		"all is well": {"shop", `podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels:
			{kubernetes.io/metadata.name: prod}}, podSelector: {matchLabels: {app: database}}}],
			ports: [{port: http}]}]`, nil, ""},
		"everybody": {"shop", `podSelector: {}, ingress: [{}, {ports: [{port: 1}]}],
			egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]`, nil, ""},
		"no subject": {"shop", `podSelector: {matchLabels: {app: wep}}`, []lint.Kind{lint.NoSubject},
			`spec.podSelector: podSelector "app=wep" selects no pod of namespace shop|did you mean app=web?`},
		"no subject and a port": {"shop", `podSelector: {matchLabels: {tier: x}}, ingress: [{ports: [{port: none}]}]`,
			[]lint.Kind{lint.NoSubject}, ""},
		"an empty namespace": {"empty", `podSelector: {}`, []lint.Kind{lint.EmptyNamespace}, "namespace empty has no pods"},
		"an absent one": {"shopp", `podSelector: {}`, []lint.Kind{lint.AbsentNamespace},
			"there is no namespace shopp|did you mean shop?"},
		"a finished subject": {"prod", `podSelector: {matchLabels: {app: old}}`, []lint.Kind{lint.NoSubject}, ""},
		"a subject on the node": {"prod", `podSelector: {matchLabels: {app: agent}}`, []lint.Kind{lint.NoSubject},
			`podSelector "app=agent" selects only pods on the network of their node`},
		"no peer": {"shop", `podSelector: {}, ingress: [{}, {from: [{podSelector: {matchLabels: {app: database}}}]}]`,
			[]lint.Kind{lint.NoPeer}, `spec.ingress[1].from: podSelector "app=database" selects no pod of namespace shop`},
		"no peer there": {"shop", `podSelector: {}, egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}},
			podSelector: {matchLabels: {app: databas}}}]}]`, []lint.Kind{lint.NoPeer},
			`spec.egress[0].to: podSelector "app=databas" selects no pod of namespace prod|did you mean app=database?`},
		"no namespace": {"shop", `podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: bleu}}}]}]`,
			[]lint.Kind{lint.NoPeer}, `namespaceSelector "team=bleu" selects no namespace|did you mean team=blue?`},
		"an empty one as peer": {"shop", `podSelector: {}, 
			ingress: [{from: [{namespaceSelector: {matchLabels: {team: none}}}]}]`,
			[]lint.Kind{lint.NoPeer}, `namespace empty has no pods`},
		"an absent one as peer": {"shop", `podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions:
			[{key: kubernetes.io/metadata.name, operator: In, values: [prod, prot]}]}}]}]`, []lint.Kind{lint.AbsentNamespace},
			"namespaceSelector names namespace prot, which does not exist|did you mean prod?"},
		"only an absent one": {"shop", `podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels:
			{kubernetes.io/metadata.name: nowhere}}}]}]`, []lint.Kind{lint.AbsentNamespace}, "namespace nowhere"},
		"a port": {"shop", `podSelector: {}, ingress: [{ports: [{port: htpp}, {port: 80}]}]`,
			[]lint.Kind{lint.UndeclaredPort},
			`spec.ingress[0].ports: no pod that the policy selects declares a port "htpp" for TCP|did you mean http?`},
		"a port of another protocol": {"shop", `podSelector: {}, ingress: [{ports: [{port: dns}]}]`,
			[]lint.Kind{lint.UndeclaredPort},
			`declares a port "dns" for TCP, only for UDP`},
		"a port of nobody there": {"shop", `podSelector: {}, 
			egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]`,
			[]lint.Kind{lint.UndeclaredPort}, `no pod that the rule leads to declares a port "http"`},
		"a port of somebody": {"prod", `podSelector: {}, 
			egress: [{ports: [{port: http}]}, {to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}]}]`, nil, ""},
	}
}

func TestWhatWasProbablyNotMeant(t *testing.T) {
	for name, tt := range questions() {

		t.Run(name, func(t *testing.T) {
			text := town + "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, " +
				"metadata: {name: p, namespace: " + tt.namespace + "}, " +
				"spec: {policyTypes: [Ingress, Egress], " + tt.spec + "}}"
			r, err := manifest.Parse("x", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			snap := r.Snapshot()
			snap.Namespaces = nil
			for _, n := range r.Namespaces {
				if n.Name != "shopp" { // the reader takes it for there, since it is named
					snap.Namespaces = append(snap.Namespaces, n)
				}
			}
			var kinds []lint.Kind
			var said strings.Builder
			for _, f := range lint.Check(snap) {
				kinds = append(kinds, f.Kind)
				said.WriteString(f.String() + "\n")
				if f.Severity != cluster.Warning || f.Object.String() != tt.namespace+"/p" {
					t.Errorf("%+v", f)
				}
			}
			if diff := cmp.Diff(tt.kinds, kinds); diff != "" {
				t.Errorf("kinds (-want +got):\n%s\n%s", diff, &said)
			}
			for part := range strings.SplitSeq(tt.says, "|") {
				if !strings.Contains(said.String(), part) {
					t.Errorf("it says\n%s\nwithout %q", &said, part)
				}
			}
		})
	}
}
