// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"pgregory.net/rapid"
)

// The forms of one document with the object named %[1]s.
var (
	blockForms = []string{
		"apiVersion: v1\nkind: Pod\nmetadata:\n  name: %[1]s\n",
		"# a comment\n\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: %[1]s\nspec: {}\n",
		"apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: %[1]s}\n",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %[1]s}\ndata:\n  a: |\n    ---\n    b: \"\n",
		"apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: %[1]s}\n",
	}
	// Behind another document without a separator it would be a part of that.
	indentedForm = "  apiVersion: v1\n  kind: Pod\n  metadata: {name: %[1]s}\n"
	flowForms    = []string{
		"{apiVersion: v1, kind: Pod, metadata: {name: %[1]s}}",
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList,\n items: [{metadata: {name: %[1]s}}]}",
	}
	jsonForms = []string{
		`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "%[1]s"}}`,
		"{\n\t\"apiVersion\": \"networking.k8s.io/v1\",\n\t\"kind\": \"NetworkPolicy\"," +
			"\n\t\"metadata\": {\"name\": \"%[1]s\"}\n}",
		`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%[1]s"}}]}`,
	}
	// What may stand in front of a document.
	separators = []string{"---\n", "---\n", "\n---\n", "--- # comment\n", "---\t \n", "...\n", "...\n---\n",
		"---\n# nothing\n---\nnull\n---\n", "%%YAML 1.1\n---\n", "--- ", "--- !!map\n", "", "", "\n", " ", ",",
		"text\n",
		"null\n", "~ # comment\n", "%%FOO\n", " ---\n", "\uFEFF", "\n\uFEFF---\n", "---\u00A0\n", "\u2028---\u2028",
		"%%TAG ! tag:x,2000:\n---\n", "---#\n", "}\n", "--- |\n"}
)

// randomFile writes documents in every form, between everything that separates
// or does not, in every kind of line break and encoding. It returns the names of
// the objects as well, and the text before it was encoded.
func randomFile(t *rapid.T) (data []byte, text string, names []string) {
	var b strings.Builder
	forms := slices.Concat(blockForms, flowForms, jsonForms)
	if rapid.Bool().Draw(t, "only JSON") {
		forms = jsonForms
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "documents") {
		names = append(names, fmt.Sprintf("object%d", i))
		if i > 0 || rapid.Bool().Draw(t, "begins with a separator") {
			fmt.Fprint(&b, strings.ReplaceAll(rapid.SampledFrom(separators).Draw(t, "separator"), "%%", "%"))
		}
		if i == 0 && rapid.IntRange(0, 9).Draw(t, "indented") == 0 {
			fmt.Fprintf(&b, indentedForm, names[i])
			continue
		}
		fmt.Fprintf(&b, rapid.SampledFrom(forms).Draw(t, "form"), names[i])
		if rapid.Bool().Draw(t, "ends the line") {
			b.WriteByte('\n')
		}
	}
	lineBreak := rapid.SampledFrom([]string{"\n", "\n", "\r\n", "\r", "\u0085"}).Draw(t, "line break")
	text = strings.ReplaceAll(b.String(), "\n", lineBreak)
	return encoded(text, rapid.SampledFrom([]string{"", "", "utf-8", "le", "be"}).Draw(t, "encoding")), text, names
}

func encoded(text, as string) []byte {
	switch as {
	case "utf-8":
		return []byte("\uFEFF" + text)
	case "le":
		return utf16Text(text, binary.LittleEndian)
	case "be":
		return utf16Text(text, binary.BigEndian)
	}
	return []byte(text)
}

func utf16Text(text string, order binary.AppendByteOrder) []byte {
	var data []byte
	for _, unit := range utf16.Encode([]rune("\uFEFF" + text)) {
		data = order.AppendUint16(data, unit)
	}
	return data
}

// TestNothingOfAFileIsLost: of a random file every object is read or named in a
// diagnostic, or the whole file is refused. What a reader of YAML streams counts,
// and what kubectl reads in full, is read.
func TestNothingOfAFileIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, text, names := randomFile(t)
		r, err := Parse("f", data)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Cure == "" {
				t.Fatalf("got error %#v", err)
			}
			// kubectl does not look at what follows a flow document.
			rest := strings.Contains(syntax.Message, "text follows the end of the document")
			if !rest && slices.Equal(kubectlNames(text), names) {
				t.Fatalf("kubectl reads all of\n%q\npodwall says %v", text, err)
			}
			return
		}
		got := readNames(r)
		if !slices.Equal(got, names) {
			t.Fatalf("of\n%q\nwith %v are read or named %v", text, names, got)
		}
		if n, whole := countDocuments(text); whole && n != len(got) {
			t.Fatalf("%q\nhas %d documents, read or named %v", text, n, got)
		}
	})
}

// readNames are the names of all objects that are read or named as not used.
func readNames(r *Result) []string {
	var names []string
	for _, p := range r.Pods {
		names = append(names, p.Key.Name)
	}
	for _, p := range r.Policies {
		names = append(names, p.Key.Name)
	}
	for _, d := range r.Diagnostics {
		names = append(names, d.Object.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// countDocuments counts the documents that hold something, and says whether the
// reference reader read the whole text: one of JSON streams, else one of YAML
// streams.
func countDocuments(text string) (n int, whole bool) {
	stream := json.NewDecoder(strings.NewReader(text))
	for {
		var value any
		err := stream.Decode(&value)
		if err == io.EOF {
			return n, true
		}
		if err != nil {
			break
		}
		if value != nil {
			n++
		}
	}
	n = 0
	for documents := yamlv3.NewDecoder(strings.NewReader(text)); ; {
		var value any
		err := documents.Decode(&value)
		if err != nil {
			return n, err == io.EOF
		}
		if _, isMap := value.(map[string]any); !isMap && value != nil {
			return n, false
		}
		if value != nil {
			n++
		}
	}
}

// kubectlNames are the names of the objects that kubectl's reader finds, none if
// it refuses the text.
func kubectlNames(text string) []string {
	var names []string
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var o struct {
			Metadata struct{ Name string }
			Items    []struct{ Metadata struct{ Name string } }
		}
		var raw runtime.RawExtension
		err := decoder.Decode(&raw)
		if err == io.EOF {
			return names
		}
		if err != nil {
			return nil
		}
		if raw.Raw = bytes.TrimSpace(raw.Raw); len(raw.Raw) == 0 || bytes.Equal(raw.Raw, []byte("null")) {
			continue
		}
		if json.Unmarshal(raw.Raw, &o) != nil || o.Metadata.Name != "" && o.Items != nil {
			return nil // of keys that stand twice the second counts there
		}
		if o.Metadata.Name != "" {
			names = append(names, o.Metadata.Name)
		}
		for _, i := range o.Items {
			names = append(names, i.Metadata.Name)
		}
	}
}

// TestTheTableOfFormsIsTrue holds the table of docs/manifests.md against kubectl's
// reader and ours: the objects that each finds, "refused" where it refuses.
func TestTheTableOfFormsIsTrue(t *testing.T) {
	pod := func(name string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n", name)
	}
	flow := func(name string) string { return fmt.Sprintf(flowForms[0], name) }
	value := func(name string) string { return fmt.Sprintf(jsonForms[0], name) }
	const both = "[a b]"
	for _, c := range []struct{ name, text, kubectl, podwall string }{
		{"markers", pod("a") + "--- # comment\n" + pod("b"), both, both},
		{"JSON lines", value("a") + "\n" + value("b") + "\n", both, both},
		{"JSON in one line", value("a") + value("b"), both, both},
		{"YAML behind JSON", value("a") + "\n" + pod("b"), both, both},
		{"a byte order mark in the middle", pod("a") + "---\n\uFEFF" + pod("b"), both, both},
		{"a byte order mark before a marker", pod("a") + "\uFEFF---\n" + pod("b"), "refused", both},
		{"text behind a marker", pod("a") + "--- " + flow("b"), "refused", both},
		{"a tag behind a marker", pod("a") + "--- !!map\n" + pod("b"), "refused", both},
		{"dots", pod("a") + "...\n" + pod("b"), "[a]", both},
		{"CR", strings.ReplaceAll(pod("a")+"---\n"+pod("b"), "\n", "\r"), "[a]", both},
		{"NEL", pod("a") + "\u0085---\u0085" + pod("b"), "[a]", both},
		{"LS", pod("a") + "\u2028---\u2028" + pod("b"), "[a]", both},
		{"text behind a flow document", flow("a") + "\n" + pod("b"), "[a]", "refused"},
		{"a flow document behind another one", flow("a") + "\n" + flow("b"), "[a]", "refused"},
		{"a key that stands twice", pod("a") + "metadata: {name: b}\n", "[b]", "refused"},
		{"a field beside items", "{apiVersion: v1, kind: List, items: [" + flow("a") + "], Items: [" + flow("b") + "]}",
			"[a]", "refused"},
		{"a control character", pod("a") + "\x1a", "refused", "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			kubectl, podwall := "refused", "refused"
			if names := kubectlNames(c.text); names != nil {
				kubectl = fmt.Sprint(names)
			}
			if r, err := Parse("f", []byte(c.text)); err == nil {
				podwall = fmt.Sprint(readNames(r))
			}
			if kubectl != c.kubectl || podwall != c.podwall {
				t.Errorf("kubectl %s, podwall %s; want %s, %s", kubectl, podwall, c.kubectl, c.podwall)
			}
		})
	}
}
