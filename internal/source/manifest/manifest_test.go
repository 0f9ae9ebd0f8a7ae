// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// summary prints a result: one word for each object, then one line for each
// diagnostic with its severity, kind, object and field.
func summary(r *Result) string {
	var b strings.Builder
	for _, n := range r.Namespaces {
		fmt.Fprintf(&b, "ns:%s ", n.Name)
	}
	for _, p := range r.Pods {
		fmt.Fprintf(&b, "pod:%s%v ", p.Key, p.IPs)
	}
	for _, p := range r.Policies {
		fmt.Fprintf(&b, "policy:%s ", p.Key)
	}
	for _, s := range r.Services {
		fmt.Fprintf(&b, "service:%s/%s ", s.Namespace, s.Name)
	}
	for _, n := range r.Nodes {
		fmt.Fprintf(&b, "node:%s ", n.Name)
	}
	lines := []string{strings.TrimSpace(b.String())}
	for _, d := range r.Diagnostics {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", d.Severity, d.Kind, d.Object, d.Field)))
	}
	return strings.Join(lines, "\n")
}

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
status: {podIPs: [{ip: 10.0.0.1}]}
`

const policy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}}
`

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an empty file holds nothing", "", ""},
		{"comments and empty documents hold nothing", "# a\n---\n---\n# b\n...\n", ""},
		{"a pod and its namespace", pod, "ns:shop pod:shop/web[10.0.0.1]"},
		{"a namespace that is written is not made up", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---" + pod,
			"ns:shop pod:shop/web[10.0.0.1]"},
		{"several documents, with comments at the markers", "--- # first" + pod + "---\t# second" + policy + "---\n",
			"ns:shop pod:shop/web[10.0.0.1] policy:shop/deny"},
		{"JSON is YAML", `{"apiVersion": "v1",` + "\n\t" + `"kind": "Pod", "metadata": {"name": "web"}}`, "ns:default pod:default/web[]"},
		{"no namespace means default", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n",
			"ns:default policy:default/p"},
		{"a List has objects of all kinds", `{apiVersion: v1, kind: List, items: [
			{apiVersion: v1, kind: Pod, metadata: {name: a}}, {apiVersion: v1, kind: Node, metadata: {name: n1}}]}`,
			"ns:default pod:default/a[] node:n1"},
		{"objects of a typed list need no type", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{metadata: {name: a}}]}`,
			"ns:default policy:default/a"},
		{"services are kept without a word", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n", "service:default/s"},
		{"workloads are left alone", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: ns}\n",
			"\nwarning Deployment ns/d"},
		{"other kinds are left alone", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n", "\nwarning ConfigMap c"},
		{"another project's NetworkPolicy is left alone",
			"apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: c}\n", "\nwarning NetworkPolicy c"},
		{"a policy of another project is named", "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: c, namespace: a}\n",
			"\nwarning CiliumNetworkPolicy a/c"},
		{"a kind in another case closes", strings.Replace(policy, "NetworkPolicy", "Networkpolicy", 1),
			"ns:shop policy:shop/deny\nerror NetworkPolicy shop/deny kind"},
		{"a kind with swapped letters closes", strings.Replace(policy, "NetworkPolicy", "NetworkPolciy", 1),
			"ns:shop policy:shop/deny\nerror NetworkPolicy shop/deny kind"},
		{"an unknown kind with a podSelector closes", strings.Replace(policy, "NetworkPolicy", "Firewall", 1),
			"ns:shop policy:shop/deny\nerror NetworkPolicy shop/deny kind"},
		{"an unknown version closes", strings.Replace(policy, "networking.k8s.io/v1", "networking.k8s.io/v1beta1", 1),
			"ns:shop policy:shop/deny\nerror NetworkPolicy shop/deny apiVersion"},
		{"an unknown group closes", strings.Replace(policy, "networking.k8s.io/v1", "networking/v1", 1),
			"ns:shop policy:shop/deny\nerror NetworkPolicy shop/deny apiVersion"},
		{"an unknown group with a misspelt kind closes",
			strings.NewReplacer("networking.k8s.io/v1", "networking/v1", "NetworkPolicy", "NetworkPolciy").Replace(policy),
			"ns:shop policy:shop/deny\nerror NetworkPolicy shop/deny kind"},
		{"a typed list of an unknown version closes",
			`{apiVersion: networking.k8s.io/v1beta1, kind: NetworkPolicyList, items: [{metadata: {name: a}}]}`,
			"ns:default policy:default/a\nerror NetworkPolicy default/a apiVersion"},
		{"other kinds of the group are left alone", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec: {}\n",
			"\nwarning Ingress i"},
		{"objects that are not used may have any shape", "apiVersion: example.org/v1\nkind: WishList\nmetadata: {labels: {a: 1}}\nitems: {}\n",
			"\nwarning WishList"},
		{"lists that are not used may have items of any shape", "apiVersion: example.org/v1\nkind: WishList\nitems: [a, 1]\n",
			"\nwarning WishList"},
		{"an empty list holds nothing", "apiVersion: v1\nkind: List\nitems: []\n", ""},
		{"an address that is none is an error", strings.Replace(pod, "10.0.0.1", "010.0.0.1", 1),
			"ns:shop pod:shop/web[]\nerror Pod shop/web status.podIPs[0].ip"},
		{"a name that the API refuses is a warning", strings.Replace(policy, "deny", "Deny", 1),
			"ns:shop policy:shop/Deny\nwarning NetworkPolicy shop/Deny metadata.name"},
		{"the old group of NetworkPolicy is read", strings.Replace(policy, "networking.k8s.io/v1", "extensions/v1beta1", 1),
			"ns:shop policy:shop/deny\nwarning NetworkPolicy shop/deny apiVersion"},
		{"the status that older servers print is no unknown field", policy + "status: {}\n", "ns:shop policy:shop/deny"},
		{"of two equal objects the second counts", pod + "---" + strings.Replace(pod, "10.0.0.1", "10.0.0.2", 1),
			"ns:shop pod:shop/web[10.0.0.2]\nwarning Pod shop/web"},
		{"an unknown field of a pod is a warning", pod + "note: {a: b}\n", "ns:shop pod:shop/web[10.0.0.1]\nwarning Pod shop/web note"},
		{"an unknown field of a policy's metadata is a warning", strings.Replace(policy, "{name", "{note: a, name", 1),
			"ns:shop policy:shop/deny\nwarning NetworkPolicy shop/deny metadata.note"},
		{"the name label cannot be given away",
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {kubernetes.io/metadata.name: b}}\n",
			"ns:a\nwarning Namespace a metadata.labels[kubernetes.io/metadata.name]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse("f.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, summary(got)); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryNamespaceHasItsNameAsLabel(t *testing.T) {
	got, err := Parse("f.yaml", []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: v, kubernetes.io/metadata.name: b}}\n---"+pod))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range got.Namespaces {
		if n.Labels.Get("kubernetes.io/metadata.name") != n.Name {
			t.Errorf("namespace %s has labels %s", n.Name, n.Labels)
		}
	}
}

func TestTextThatCannotBeUnderstoodNamesTheLine(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"broken YAML in the second document", pod + "---\na: b: c\n", "f.yaml:7: document 2: mapping values are not allowed in this context"},
		{"lost indentation", "a:\n- b:\n - c\n", "f.yaml:3: did not find expected key"},
		{"a bracket that is not closed", "a: 1\nb: [1\n", "f.yaml:2: did not find expected ',' or ']'"},
		{"a key that stands twice", "a: 1\nb: 2\na: 3\n", `f.yaml:3: key "a" already set in map`},
		{"a list of nothing", "- a\n", "f.yaml:1: the document is no object"},
		{"a text", "hello\n", "f.yaml:1: the document is no object"},
		{"no kind", "apiVersion: v1\n", "f.yaml:1: the object has no apiVersion or no kind"},
		{"no name", "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: a\n", "f.yaml:3: Pod: the object has no metadata.name"},
		{"a name outside of metadata", "apiVersion: v1\nkind: Pod\nmetadata:\nname: a\n",
			"f.yaml:4: Pod: name stands outside of metadata, the object has none"},
		{"a map where a list must be", policy + "---" + strings.Replace(policy, "{podSelector: {}}", "\n  ingress: {}", 1),
			"f.yaml:11: NetworkPolicy shop/deny: spec.ingress is a map, not a list"},
		{"a word that YAML takes for a truth value", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    a: y\n",
			"f.yaml:6: Pod a: metadata.labels[a] is the truth value y, not a text"},
		{"a number as a label in a list", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a, labels: {a.b/c: 007}}\n",
			"f.yaml:4: Pod a in items[0]: metadata.labels[a.b/c] is the number 007, not a text"},
		{"a wrong type inside a list", strings.Replace(policy, "{podSelector: {}}", "\n  ingress:\n  - {}\n  - from: [{}, []]", 1),
			"f.yaml:8: NetworkPolicy shop/deny: spec.ingress[1].from[1] is a list, not a map"},
		{"a template", "apiVersion: v1\nkind: Pod\nmetadata: {{ .Values.metadata }}\n",
			`f.yaml:3: the text is a template: "{{ .Values.metadata }}" was not filled in`},
		{"a template in lines of its own", "apiVersion: v1\nkind: Pod\n{{- if .Values.a }}\nmetadata: {name: a}\n{{- end }}\n",
			`f.yaml:3: the text is a template: "{{- if .Values.a }}" was not filled in`},
		{"a tab", "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n", "f.yaml:4: a tab stands in the indentation"},
		{"a namespace that the API refuses", strings.Replace(policy, "shop", "Shop", 1),
			`f.yaml:4: NetworkPolicy Shop/deny: "Shop" is no name that a namespace can have`},
		{"a misspelt namespace", strings.Replace(policy, "namespace: shop", "Namespace: shop", 1),
			"f.yaml:4: NetworkPolicy deny: metadata.Namespace is no field: metadata.namespace is meant"},
		{"misspelt labels", strings.Replace(pod, "{name", "{lables: {a: b}, name", 1),
			"f.yaml:4: Pod shop/web: metadata.lables is no field: metadata.labels is meant"},
		{"labels outside of metadata", pod + "labels: {a: b}\n", "f.yaml:6: Pod shop/web: labels is no field: metadata.labels is meant"},
		{"lists in lists in lists", strings.Repeat("{apiVersion: v1, kind: List, items: [", 30) + strings.Repeat("]}", 30),
			"f.yaml:1: List in " + strings.Repeat("items[0].", 19) + "items[0]: the lists are nested too deeply"},
		{"a name that would move the cursor", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a\u001b[2J", "labels": {"x": 1}}}`,
			`f.yaml:1: "Pod a\x1b[2J": metadata.labels[x] is the number 1, not a text`},
		{"a list of another spelling", "apiVersion: v1\nkind: Podlist\nitems: []\n", `f.yaml:2: Podlist: the kind "Podlist" is unknown, and almost that of a list`},
		{"a pod of another spelling", "apiVersion: v1\nkind: pod\nmetadata: {name: a}\n",
			`f.yaml:2: pod a: apiVersion "v1" and kind "pod" are unknown, and almost those of a kind that is used`},
		{"a list with another field", "apiVersion: v1\nkind: List\nitems: []\nItems: [{}]\n", "f.yaml:4: List: Items is no field of a list"},
		{"a list without items", "apiVersion: v1\nkind: List\n", "f.yaml:1: List: the list has no items"},
		{"a key that stands twice in JSON", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "name": "b"}}`,
			"f.yaml:1: Pod b: metadata.name stands twice"},
		{"an item that is no object", `{"apiVersion": "v1", "kind": "List", "items": [1]}`, "f.yaml:1: items[0]: the entry is no object"},
		{"bytes that are no UTF-8", "apiVersion: v1\nkind: \xff\n", "f.yaml:2: the byte 0xff is no UTF-8"},
		{"half a character of UTF-16", "\xff\xfea\x00\n", "f.yaml:1: the text is no UTF-16, but begins with the byte order mark of it"},
		{"a hundred unknown fields", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n" + unknownFields(100),
			"f.yaml:1: Pod a: the object has a hundred unknown fields or more"},
		{"a broken object in a list", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n  spec:\n    hostNetwork: x\n",
			"f.yaml:7: Pod b in items[1]: spec.hostNetwork is a text, not true or false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.text))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("got error %v", err)
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			if syntax.Cure == "" {
				t.Error("there is no cure")
			}
		})
	}
}

func unknownFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "x%d: 1\n", i)
	}
	return b.String()
}

func TestSeedExamplesAsPrintedAreNamedAsBroken(t *testing.T) {
	want := []string{
		"example1.yaml:9: did not find expected key",
		"example2.yaml:4: NetworkPolicy: name stands outside of metadata, the object has none",
		"example3.yaml:9: did not find expected key",
		"example4.yaml:9: did not find expected key",
		"example5.yaml:9: did not find expected key",
	}
	for i, w := range want {
		name := fmt.Sprintf("example%d.yaml", i+1)
		data, err := os.ReadFile(filepath.Join("testdata", "seed", "as-printed", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(name, data); err == nil || err.Error() != w {
			t.Errorf("got  %v\nwant %s", err, w)
		}
	}
}

func TestSeedExamplesRepaired(t *testing.T) {
	got, err := Load(From{Paths: []string{filepath.Join("..", "..", "..", "examples", "seed")}})
	if err != nil {
		t.Fatal(err)
	}
	want := "ns:default ns:nsa policy:default/npd policy:nsa/npa" + strings.Repeat("\nwarning NetworkPolicy nsa/npa", 3)
	if diff := cmp.Diff(want, summary(got)); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
	block, err := Load(From{Paths: []string{filepath.Join("..", "..", "..", "examples", "seed", "4-egress-to-cidr.yaml")}})
	if err != nil {
		t.Fatal(err)
	}
	p := block.Policies[0]
	rule := p.Egress[0]
	if p.IsolatesIngress || !p.IsolatesEgress || rule.Peers.List[0].Block.CIDR.String() != "14.215.0.0/16" ||
		rule.Ports.List[0] != (cluster.Port{Protocol: cluster.TCP, First: 5978, Last: 5978}) {
		t.Errorf("example 4 is %+v", p)
	}
}

func TestLoadReportsBrokenFilesAndUsesTheOthers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", pod)
	write(t, dir, "b.yml", "a: b: c")
	write(t, dir, "c.json", `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"}}`)
	write(t, dir, "d.txt", "a: b: c")
	write(t, dir, ".hidden.yaml", "a: b: c")
	if err := os.MkdirAll(filepath.Join(dir, "sub.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := Load(From{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	want := "ns:default ns:shop pod:default/j[] pod:shop/web[10.0.0.1]\nerror File b.yml b.yml:1"
	if diff := cmp.Diff(want, summary(got)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestOfTwoFilesTheLaterByNameCounts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "2.yaml", pod)
	write(t, dir, "10.yaml", strings.Replace(pod, "10.0.0.1", "10.0.0.2", 1))
	got, err := Load(From{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Pods) != 1 || got.Pods[0].IPs[0].String() != "10.0.0.1" {
		t.Errorf("got %s", summary(got))
	}
	if m := got.Diagnostics[0].Message; !strings.Contains(m, "10.yaml:2 and in 2.yaml:2") {
		t.Errorf("the diagnostic does not name both files: %s", m)
	}
}

func TestLoadOfAMissingDirectoryIsAnError(t *testing.T) {
	if _, err := Load(From{Paths: []string{filepath.Join(t.TempDir(), "none")}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
