// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
)

// row is one reading: a spec as a user writes it, what it means (see meaning)
// and the fields that diagnostics must name, with their severity.
type row struct {
	name, spec, want string
	found            []string
}

func (r row) run(t *testing.T) {
	t.Helper()
	var spec networkingv1.NetworkPolicySpec
	if err := yaml.Unmarshal([]byte(r.spec), &spec); err != nil {
		t.Fatal(err)
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: spec}
	p, found := Policy(np)
	if diff := cmp.Diff(strings.TrimSpace(r.want), meaning(p)); diff != "" {
		t.Errorf("meaning (-want +got):\n%s", diff)
	}
	var fields []string
	for _, d := range found {
		fields = append(fields, d.Severity.String()+" "+d.Field)
		if d.Kind != KindPolicy || d.Object != keyOf(np) || d.Message == "" || d.Cure == "" {
			t.Errorf("incomplete diagnostic %+v", d)
		}
	}
	if diff := cmp.Diff(r.found, fields); diff != "" {
		t.Errorf("diagnostics (-want +got):\n%s", diff)
	}
}

func keyOf(np *networkingv1.NetworkPolicy) cluster.Key {
	return cluster.Key{Namespace: np.Namespace, Name: np.Name}
}

// meaning prints a policy in one line for the subject and one for each
// direction that is isolated.
func meaning(p *cluster.Policy) string {
	lines := []string{"subject " + p.Subject.String()}
	if p.IsolatesIngress {
		lines = append(lines, "ingress"+rulesText(p.Ingress))
	}
	if p.IsolatesEgress {
		lines = append(lines, "egress"+rulesText(p.Egress))
	}
	return strings.Join(lines, "\n")
}

func rulesText(rules []cluster.Rule) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, " %d{%s : %s}", r.Index, peersText(r.Peers), portsText(r.Ports))
	}
	return b.String()
}

func peersText(p cluster.Peers) string {
	if p.Any {
		return "any"
	}
	var list []string
	for _, e := range p.List {
		ns := "own"
		if e.Namespaces != nil {
			ns = e.Namespaces.String()
		}
		if e.Block == nil {
			list = append(list, ns+"/"+e.Pods.String())
			continue
		}
		text := e.Block.CIDR.String()
		for _, x := range e.Block.Except {
			text += "!" + x.String()
		}
		list = append(list, text)
	}
	if len(list) == 0 {
		return "nobody"
	}
	return strings.Join(list, " | ")
}

func portsText(p cluster.Ports) string {
	if p.Any {
		return "any"
	}
	var list []string
	for _, e := range p.List {
		list = append(list, e.String())
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " | ")
}

func runRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, r.run)
	}
}

func TestPolicyTypesDefault(t *testing.T) {
	runRows(t, []row{
		{"an empty spec isolates every pod for ingress", `{}`, "subject all\ningress", nil},
		{"null lists are absent lists", `{podSelector: null, ingress: null, egress: null, policyTypes: null}`,
			"subject all\ningress", nil},
		{"empty lists are absent lists", `{podSelector: {}, ingress: [], egress: [], policyTypes: []}`,
			"subject all\ningress", []string{"warning spec.egress"}},
		{"an empty egress list isolates egress if that is named", `{policyTypes: [Egress], egress: []}`,
			"subject all\negress", nil},
		{"an empty egress list of an ingress policy denies nothing", `{policyTypes: [Ingress], ingress: [], egress: []}`,
			"subject all\ningress", []string{"warning spec.egress"}},
		{"an empty ingress list of an egress policy denies nothing", `{policyTypes: [Egress], ingress: []}`,
			"subject all\negress", []string{"warning spec.ingress"}},
		{"an egress rule isolates egress too", `{egress: [{}]}`, "subject all\ningress\negress 0{any : any}", nil},
		{"Egress alone leaves ingress open", `{policyTypes: [Egress]}`, "subject all\negress", nil},
		{"Ingress alone leaves egress open", `{policyTypes: [Ingress]}`, "subject all\ningress", nil},
		{"both are isolated when both are named", `{policyTypes: [Egress, Ingress]}`, "subject all\ningress\negress",
			nil},
		{"rules of a direction that is not named mean nothing", `{policyTypes: [Ingress], egress: [{}]}`,
			"subject all\ningress", []string{"warning spec.egress"}},
		{"ingress rules of an egress policy mean nothing", `{policyTypes: [Egress], ingress: [{}]}`,
			"subject all\negress", []string{"warning spec.ingress"}},
		{"an unknown type isolates ingress", `{policyTypes: [Both]}`, "subject all\ningress",
			[]string{"error spec.policyTypes[0]"}},
		{"an unknown type beside Egress isolates both", `{policyTypes: [Egress, ""]}`, "subject all\ningress\negress",
			[]string{"error spec.policyTypes[1]"}},
		{"an unknown type isolates the directions that have rules", `{policyTypes: [Both], egress: [{}]}`,
			"subject all\ningress\negress 0{any : any}", []string{"error spec.policyTypes[0]"}},
		{"a type in lower case is surely meant", `{policyTypes: [egress]}`, "subject all\ningress\negress",
			[]string{"error spec.policyTypes[0]"}},
	})
}

func TestRulesWithoutConstraints(t *testing.T) {
	runRows(t, []row{
		{"an empty rule allows everything", `{ingress: [{}]}`, "subject all\ningress 0{any : any}", nil},
		{"empty lists in a rule allow everything", `{ingress: [{from: [], ports: []}]}`,
			"subject all\ningress 0{any : any}", nil},
		{"null lists in a rule allow everything", `{ingress: [{from: null, ports: null}]}`,
			"subject all\ningress 0{any : any}", nil},
		{"a rule of peers allows every port", `{ingress: [{from: [{podSelector: {}}]}]}`,
			"subject all\ningress 0{own/all : any}", nil},
		{"a rule of ports allows every peer", `{ingress: [{ports: [{port: 80}]}]}`,
			"subject all\ningress 0{any : tcp:80}", nil},
		{"rules keep their position", `{ingress: [{ports: [{port: 1}]}, {ports: [{port: 2}]}]}`,
			"subject all\ningress 0{any : tcp:1} 1{any : tcp:2}", nil},
	})
}

func TestSubjectSelector(t *testing.T) {
	runRows(t, []row{
		{"labels and expressions are one and", `{podSelector: {matchLabels: {b: "2", a: "1"}, matchExpressions: [{key: c, operator: Exists}]}}`,
			"subject a=1,b=2,c\ningress", nil},
		{"every operator is read", `{podSelector: {matchExpressions: [{key: a, operator: In, values: [w, v]},
			{key: b, operator: NotIn, values: [z]}, {key: c, operator: DoesNotExist}]}}`,
			"subject a in (v,w),b notin (z),!c\ningress", nil},
		{"an unknown operator isolates the namespace and allows nothing",
			`{podSelector: {matchExpressions: [{key: a, operator: Equals, values: [x]}]}, ingress: [{}], egress: [{}]}`,
			"subject all\ningress\negress", []string{"error spec.podSelector"}},
		{"In without values isolates the namespace and allows nothing",
			`{podSelector: {matchExpressions: [{key: a, operator: In}]}, ingress: [{}]}`,
			"subject all\ningress", []string{"error spec.podSelector"}},
		{"a bad subject still isolates only the direction that is named",
			`{podSelector: {matchLabels: {"a b": x}}, policyTypes: [Egress], egress: [{}]}`,
			"subject all\negress", []string{"error spec.podSelector"}},
	})
}

func TestSelectorTextDoesNotDependOnOrder(t *testing.T) {
	read := func(expressions string) string {
		var s metav1.LabelSelector
		if err := yaml.Unmarshal([]byte(expressions), &s); err != nil {
			t.Fatal(err)
		}
		got, ok := new(reader).selector("f", &s, "")
		if !ok {
			t.Fatalf("%s is not understood", expressions)
		}
		return got.Text()
	}
	a := read(`{matchLabels: {k: v}, matchExpressions: [{key: k, operator: Exists}, {key: k, operator: NotIn, values: [b, a]}]}`)
	b := read(`{matchExpressions: [{key: k, operator: NotIn, values: [a, b]}, {key: k, operator: Exists}, {key: k, operator: Exists}], matchLabels: {k: v}}`)
	if a != b {
		t.Errorf("%q and %q are the same selector", a, b)
	}
}

func TestDiagnosticOfSeveralBadLabelsIsAlwaysTheSame(t *testing.T) {
	s := metav1.LabelSelector{MatchLabels: map[string]string{"a b": "", "c d": "", "e f": "", "g h": ""}}
	for range 20 {
		r := new(reader)
		if r.selector("f", &s, ""); !strings.Contains(r.found[0].Message, `"a b"`) {
			t.Fatalf("%s does not name the first bad label", r.found[0].Message)
		}
	}
}
