// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is a leaf of values.yaml with the comment above it.
type value struct{ path, text, fallback string }

// valuesTable makes the README's table from values.yaml.
func valuesTable(dir string) (string, error) {
	list, err := documented(filepath.Join(dir, "values.yaml"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| value | default | meaning |\n| --- | --- | --- |\n")
	for _, v := range list {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.path, v.fallback, strings.ReplaceAll(v.text, "|", `\|`))
	}
	return b.String(), nil
}

// documented returns the values in the order of the file. One without a comment
// is an error.
func documented(file string) ([]value, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	return leaves(doc.Content[0], "")
}

func leaves(m *yaml.Node, prefix string) (list []value, err error) {
	for i := 0; i < len(m.Content); i += 2 {
		key, val := m.Content[i], m.Content[i+1]
		comment := strings.ReplaceAll(strings.ReplaceAll(key.HeadComment, "\n# ", " "), "\n", " ")
		comment = strings.TrimPrefix(comment, "# ")
		if val.Kind == yaml.MappingNode && len(val.Content) > 0 && comment == "" {
			below, err := leaves(val, prefix+key.Value+".")
			if err != nil {
				return nil, err
			}
			list = append(list, below...)
			continue
		}
		if comment == "" {
			return nil, fmt.Errorf("values.yaml line %d: %s has no comment that says what it means", key.Line,
				prefix+key.Value)
		}
		fallback, err := compact(val)
		if err != nil {
			return nil, err
		}
		list = append(list, value{prefix + key.Value, comment, fallback})
	}
	return list, nil
}

// compact writes a value on one line.
func compact(n *yaml.Node) (string, error) {
	one := *n
	flow(&one)
	data, err := yaml.Marshal(&one)
	return strings.TrimSpace(string(data)), err
}

func flow(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		flow(c)
	}
}
