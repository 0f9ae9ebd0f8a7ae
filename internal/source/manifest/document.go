// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// document is one YAML document of a file, or one object of a list in it.
type document struct {
	file string
	line int    // the line of the file on which the document starts, from 1
	text []byte // YAML
	json []byte // the same as JSON; for an object of a list that object only
	base string // path of the object inside the document, empty for the document
	tree *tree  // shared by the objects of a list
}

// tree is the document's syntax tree, made when the first line is asked for.
type tree struct {
	read bool
	root *yamlv3.Node // nil if there is none
}

// split cuts a file at the document markers. The markers cannot occur inside a
// document: YAML forbids them in texts that start in the first column.
func split(name string, data []byte) []document {
	var docs []document
	start, first, line := 0, 1, 0
	for at := 0; at < len(data); {
		end := at + bytes.IndexByte(data[at:], '\n') + 1
		if end == at {
			end = len(data)
		}
		line++
		if isMarker(data[at:end]) {
			docs = append(docs, document{file: name, line: first, text: data[start:at], tree: new(tree)})
			start, first = end, line+1
		}
		at = end
	}
	return append(docs, document{file: name, line: first, text: data[start:], tree: new(tree)})
}

func isMarker(line []byte) bool {
	rest, found := bytes.CutPrefix(line, []byte("---"))
	if !found {
		rest, found = bytes.CutPrefix(line, []byte("..."))
	}
	if !found || len(rest) > 0 && !strings.ContainsRune(" \t\r\n", rune(rest[0])) {
		return false
	}
	rest = bytes.TrimSpace(rest)
	return len(rest) == 0 || rest[0] == '#'
}

// toJSON reads the YAML as kubectl does (YAML 1.1, so that an unquoted y is
// true). It reports whether the document holds anything.
func (d *document) toJSON() (bool, error) {
	converted, err := yaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return false, d.yamlError(err)
	}
	converted = bytes.TrimSpace(converted)
	if bytes.Equal(converted, []byte("null")) {
		return false, nil
	}
	if converted[0] != '{' {
		return false, d.errorAt(d.line, "the document is no object", "write apiVersion, kind, metadata and spec")
	}
	d.json = converted
	return true, nil
}

func (d *document) errorAt(line int, message, cure string) error {
	return &SyntaxError{File: d.file, Line: line, Message: message, Cure: cure}
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// yamlError translates an error of the YAML library into our own. It is the
// only place that looks into the library's texts.
func (d *document) yamlError(err error) error {
	message, line := err.Error(), 1
	if at := yamlLine.FindStringSubmatchIndex(message); at != nil {
		line, _ = strconv.Atoi(message[at[2]:at[3]])
		message = message[at[1]:]
	}
	message = strings.TrimPrefix(message, "yaml: ")
	if strings.HasPrefix(message, "did not find") {
		line++ // the library counts these from 0
	}
	message, _, _ = strings.Cut(message, "\n")
	last := max(1, bytes.Count(bytes.TrimSpace(d.text), []byte("\n"))+1)
	return d.errorAt(d.line-1+min(line, last), message, "correct the YAML; most often it is the indentation")
}

// lineOf finds the line of a field such as spec.ingress[0].from, or of the
// nearest field around it that exists.
func (d *document) lineOf(path string) int {
	node := d.tree.of(d.text)
	if node == nil {
		return d.line
	}
	line := node.Line
	for _, step := range steps(strings.Trim(d.base+"."+path, ".")) {
		child, at := descend(node, step)
		if child == nil {
			break
		}
		node, line = child, at
	}
	return d.line - 1 + line
}

func (t *tree) of(text []byte) *yamlv3.Node {
	var document yamlv3.Node
	if !t.read && yamlv3.Unmarshal(text, &document) == nil && len(document.Content) > 0 {
		t.root = document.Content[0]
	}
	t.read = true
	return t.root
}

// steps cuts spec.ingress[0].from into spec, ingress, [0] and from.
func steps(path string) []string {
	return strings.FieldsFunc(strings.ReplaceAll(path, "[", ".["), func(r rune) bool { return r == '.' })
}

func descend(n *yamlv3.Node, step string) (*yamlv3.Node, int) {
	if n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if index, found := strings.CutPrefix(step, "["); found {
		i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
		if err != nil || n.Kind != yamlv3.SequenceNode || i >= len(n.Content) {
			return nil, 0
		}
		return n.Content[i], n.Content[i].Line
	}
	if n.Kind != yamlv3.MappingNode {
		return nil, 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == step {
			return n.Content[i+1], n.Content[i].Line
		}
	}
	return nil, 0
}

// jsonError translates a decoding error: the YAML was right, its shape was not.
func (d *document) jsonError(err error) error {
	var shape *json.UnmarshalTypeError
	if !errors.As(err, &shape) {
		return d.errorAt(d.lineOf(""), err.Error(), "see kubectl explain for the fields' types")
	}
	cure := "see kubectl explain for the type of the field"
	if shape.Value == "bool" {
		cure = "put the words y, n, yes, no, on, off, true and false in quotes where they are texts"
	}
	return d.errorAt(d.lineOf(shape.Field), shape.Field+" cannot be of type "+shape.Value, cure)
}
