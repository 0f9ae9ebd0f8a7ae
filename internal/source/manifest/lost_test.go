// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"strings"
	"testing"
)

// flowPolicy is a policy as an entry of a list.
const flowPolicy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}}}"

// TestWhatWouldBeLostRefusesTheFile: each file could be read, but for what its
// writer surely meant.
func TestWhatWouldBeLostRefusesTheFile(t *testing.T) {
	typeOf := map[string]string{
		"Pod": "apiVersion: v1\nkind: Pod\n", "Namespace": "apiVersion: v1\nkind: Namespace\n",
		"Service": "apiVersion: v1\nkind: Service\n",
		"policy":  "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n",
	}
	for _, c := range []struct{ kind, text, want string }{
		{"", "apiVersion: v1\nkind: List\nitems:\n", "f:1: List: the list has no items"},
		{"", "apiVersion: v1\nkind: PodList\nitems: ~\n", "f:1: PodList: the list has no items"},
		{"", "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: null}]}",
			"f:1: List in items[0]: the list has no items"},

		{"Pod", "metadata: {name: a}\nspec: {labels: {app: a}}\n",
			"f:4: Pod a: spec.labels is no field: metadata.labels is meant"},
		{"Pod", "metadata: {name: a}\nspec:\n  containers:\n  - name: c\n    Labels: {app: a}\n",
			"f:7: Pod a: spec.containers[0].Labels is no field: metadata.labels is meant"},
		{"Pod", "metadata: {name: a}\nspec: {metadata: {labels: {app: a}}}\n",
			"f:4: Pod a: spec.metadata is no field: metadata is meant"},
		{"Pod", "metadata: {name: a}\nMetadata: {namespace: x}\n",
			"f:4: Pod a: Metadata is no field: metadata is meant"},
		{"Pod", "metadata: {name: a}\nmetdata: {labels: {app: a}}\n",
			"f:4: Pod a: metdata is no field: metadata is meant"},
		{"Namespace", "metadata: {name: a}\nspec: {labels: {app: a}}\n",
			"f:4: Namespace a: spec.labels is no field: metadata.labels is meant"},
		{"Namespace", "metadata: {name: a}\nmetaData: {labels: {app: a}}\n",
			"f:4: Namespace a: metaData is no field: metadata is meant"},
		{"Service", "metadata: {name: a}\nspec: {namespace: x}\n",
			"f:4: Service a: spec.namespace is no field: metadata.namespace is meant"},
		{"policy", "metadata: {name: a}\nspec: {namespace: x}\n",
			"f:4: NetworkPolicy a: spec.namespace is no field: metadata.namespace is meant"},
		{"policy", "metadata: {name: a}\nspec: {podSelector: {nameSpace: x}}\n",
			"f:4: NetworkPolicy a: spec.podSelector.nameSpace is no field: metadata.namespace is meant"},
		{"policy", "metadata: {name: a}\nspec: {metadata: {namespace: x}}\n",
			"f:4: NetworkPolicy a: spec.metadata is no field: metadata is meant"},

		{"", "{apiVersion: v1, kind: ConfigMapList, items: [" + flowPolicy + "], Items: [" + flowPolicy + "]}",
			"f:1: ConfigMapList: Items is no field of a list"},
		{"", "{apiVersion: networking.k8s.io/v1, kind: NetPolicyList, items: [" + flowPolicy + "], Item: [" +
			flowPolicy + "]}",
			"f:1: NetPolicyList: Item is no field of a list"},

		{"", "null\n  apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n",
			"f:2: mapping values are not allowed in this context"},
		{"", "--- null\n\n # c\n apiVersion: v1\n", "f:4: text follows the end of the document"},
	} {
		r, err := Parse("f", []byte(typeOf[c.kind]+c.text))
		switch {
		case err == nil:
			t.Errorf("%s%s\nis read as %s\nwant %s", typeOf[c.kind], c.text, summary(r), c.want)
		case err.Error() != c.want:
			t.Errorf("%s%s\ngot  %s\nwant %s", typeOf[c.kind], c.text, err, c.want)
		}
	}
}

// TestWhatIsLostInAnObjectThatIsNotUsedIsAnError: what is no list is not taken
// apart, and the policies and pods in it are missed.
func TestWhatIsLostInAnObjectThatIsNotUsedIsAnError(t *testing.T) {
	const flowPod = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}"
	for _, c := range []struct{ name, text, want string }{
		{"a misspelt List", "{apiVersion: v1, kind: Lists, items: [" + flowPolicy + "]}", "error Lists  items[0]"},
		{"another kind", "{apiVersion: v1, kind: Foo, metadata: {name: f}, items: [1, " + flowPod + "]}",
			"error Foo f items[1]"},
		{"a Template", "{apiVersion: template.openshift.io/v1, kind: Template, metadata: {name: f}, objects: [" +
			flowPolicy + "]}",
			"error Template f objects[0]"},
		{"a list with an entry that is none", "{apiVersion: v1, kind: ConfigMapList, items: [" + flowPolicy +
			", null]}",
			"error ConfigMapList  items[0]"},
		{"a list with misspelt items", "{apiVersion: v1, kind: ConfigMapList, Item: [" + flowPolicy + "]}",
			"error ConfigMapList  Item[0]"},
		{"a list in it", "{apiVersion: v1, kind: Lists, items: [{apiVersion: v1, kind: List, items: [" + flowPolicy +
			"]}]}",
			"error Lists  items[0].items[0]"},
		{"a misspelt policy", "{apiVersion: v1, kind: Lists, items: [" + strings.Replace(flowPolicy, "NetworkPolicy",
			"Networkpolicy", 1) + "]}",
			"error Lists  items[0]"},
		{"a Template of other things", "{apiVersion: template.openshift.io/v1, kind: Template, metadata: {name: f}, " +
			"objects: [{apiVersion: v1, kind: ConfigMap}, 1, null]}", "warning Template f"},
		{"an owner", "{apiVersion: v1, kind: ConfigMap, metadata: {name: f, ownerReferences: [" + flowPod + "]}}",
			"warning ConfigMap f"},
	} {
		r, err := Parse("f", []byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := strings.Replace("\n"+c.want, "  ", " / ", 1)
		got := strings.Replace(summary(r), "  ", " / ", 1)
		if got != want || r.AsWritten() != strings.HasPrefix(c.want, "warning") {
			t.Errorf("%s: got %q, as written %v; want %q", c.name, got, r.AsWritten(), want)
		}
	}
}

// TestWhatIsKnownIsNotMeantElsewhere: the API has fields of these names, and a
// rule closes by itself.
func TestWhatIsKnownIsNotMeantElsewhere(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {labels: b, namespace: c}}\nspec:\n  affinity: {podAffinity: " +
			"{requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: t, namespaces: [x]}]}}\n  volumes: [{name: v, ephemeral: " +
			"{volumeClaimTemplate: {metadata: {labels: {a: b}}}}}]\n", "ns:default pod:default/a[]"},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {labels: a, namespace: b}}\n",
			"service:default/a"},
		{"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {ingress: [{from: [{namespace: x}]}]}\n",
			"ns:default policy:default/a\nerror NetworkPolicy default/a spec.ingress[0].from[0].namespace"},
		{"null\n# c\n\nnull\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "ns:default pod:default/a[]"},
		{"null\n--- null\n  # c\n...\n---\n  null", ""},
	} {
		r, err := Parse("f", []byte(c.text))
		if err != nil {
			t.Errorf("%s\n%v", c.text, err)
		} else if got := summary(r); got != c.want {
			t.Errorf("%s\ngot  %q\nwant %q", c.text, got, c.want)
		}
	}
}
