// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// document is one document of a file, or one object of a list in it.
type document struct {
	file   string
	index  int    // position of the document in the file, from 1
	line   int    // the line of the file on which the document starts, from 1
	text   []byte // YAML or JSON
	json   []byte // the same as JSON; for an object of a list only that object
	base   string // path of the object inside the document, empty for the document
	object string // kind and name of the object, as soon as they are known
	tree   *tree  // shared by the objects of a list
}

// tree is the document's syntax tree, built at its first use.
type tree struct {
	read bool
	root *yamlv3.Node // nil if there is none
}

// toJSON reads the YAML as kubectl does (YAML 1.1, so that an unquoted y is true). It reports
// whether the document is not empty.
func (d *document) toJSON() (bool, error) {
	if d.json != nil {
		return true, nil
	}
	converted, err := yaml.YAMLToJSONStrict(d.text)
	converted = bytes.TrimSpace(converted)
	isMap := bytes.HasPrefix(converted, []byte("{"))
	if err == nil && !(isMap && fillsItsText(d.text)) {
		err = d.readToEnd()
	}
	if err != nil {
		return false, d.yamlError(err)
	}
	if bytes.Equal(converted, []byte("null")) {
		return false, nil
	}
	if !isMap {
		return false, d.errorAt(d.line, "the document is no object", "write apiVersion, kind, metadata and spec; "+
			"several objects stand in documents of their own, or below items of a List")
	}
	d.json = converted
	return true, nil
}

// fillsItsText reports whether a map that begins like this certainly ends with the text. A map of
// lines that begins in the first column ends only at a marker or a directive. For the usual
// documents this saves half of the time.
func fillsItsText(text []byte) bool {
	if c := text[0] | 0x20; c < 'a' || c > 'z' {
		return false
	}
	for len(text) > 0 {
		_, size := firstLine(text)
		if text = text[size:]; len(text) > 0 && text[0] == '%' {
			return false
		}
	}
	return true
}

var errRest = errors.New("did not find expected <document start>")

// readToEnd makes sure that the text is one document and nothing else: the reader of toJSON
// silently stops after the first one.
func (d *document) readToEnd() error {
	decoder := yamlv3.NewDecoder(bytes.NewReader(d.text))
	var first, second yamlv3.Node
	err := decoder.Decode(&first)
	if err == nil {
		d.tree.put(&first)
		err = decoder.Decode(&second)
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("line %d: %w", second.Line, errRest)
}

// errorAt returns an error that names the object, or the document if the object is not known.
func (d *document) errorAt(line int, message, cure string) error {
	if who := d.who(); who != "" {
		message = who + ": " + message
	}
	return &SyntaxError{File: d.file, Line: line, Message: message, Cure: cure}
}

func (d *document) who() string {
	var parts []string
	switch {
	case d.object != "":
		parts = append(parts, d.object)
	case d.index > 1:
		parts = append(parts, fmt.Sprintf("document %d", d.index))
	}
	if d.base != "" {
		parts = append(parts, d.base)
	}
	return strings.Join(parts, " in ")
}

// at names the place of a field, as the end of a message.
func (d *document) at(path string) string { return fmt.Sprintf(" (%s:%d)", d.file, d.lineOf(path)) }

// origin names the place of the object, without searching for its line.
func (d *document) origin() string {
	return strings.TrimSuffix(fmt.Sprintf("%s:%d %s", d.file, d.line, d.base), " ")
}

// lineOf finds the line of a field such as spec.ingress[0].from, or of the nearest enclosing field
// that exists.
func (d *document) lineOf(path string) int {
	line, _ := d.find(path)
	return line
}

// find returns the line of a field and its text as written; no text if the field is not a single
// value.
func (d *document) find(path string) (line int, text string) {
	node := d.tree.of(d.text)
	if node == nil {
		return d.line, ""
	}
	line = node.Line
	for _, s := range steps(strings.Trim(d.base+"."+path, ".")) {
		child, at := descend(node, s)
		if child == nil {
			return d.line - 1 + line, ""
		}
		node, line = child, at
	}
	if node.Kind == yamlv3.ScalarNode {
		text = node.Value
	}
	return d.line - 1 + line, text
}

func (t *tree) put(document *yamlv3.Node) {
	t.read = true
	if len(document.Content) > 0 {
		t.root = document.Content[0]
	}
}

func (t *tree) of(text []byte) *yamlv3.Node {
	var document yamlv3.Node
	if !t.read && yamlv3.Unmarshal(text, &document) == nil {
		t.put(&document)
	}
	t.read = true
	return t.root
}

// step is one part of a path: a name, or the content of brackets, which is the index in a list or
// the key in a map.
type step struct {
	name    string
	bracket bool
}

// steps splits spec.ingress[0].from into spec, ingress, [0] and from.
func steps(path string) []step {
	var list []step
	for path != "" {
		if inside, found := strings.CutPrefix(path, "["); found {
			name, rest, _ := strings.Cut(inside, "]")
			list, path = append(list, step{name, true}), rest
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		if end > 0 {
			list = append(list, step{name: path[:end]})
		}
		path = strings.TrimPrefix(path[end:], ".")
	}
	return list
}

func descend(n *yamlv3.Node, s step) (*yamlv3.Node, int) {
	if n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if s.bracket && n.Kind == yamlv3.SequenceNode {
		i, err := strconv.Atoi(s.name)
		if err != nil || i < 0 || i >= len(n.Content) {
			return nil, 0
		}
		return n.Content[i], n.Content[i].Line
	}
	if n.Kind != yamlv3.MappingNode {
		return nil, 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == s.name {
			return n.Content[i+1], n.Content[i].Line
		}
	}
	return nil, 0
}
