// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"fmt"
	"html/template"
	"io"

	_ "embed" // for the page
)

//go:embed page.html
var page string

// pageValue is what the page shows.
type pageValue struct {
	By      By
	Names   []string
	Blocks  []block
	LeftOut []LeftOut
}

type block struct {
	Heading string
	Rows    []row
}

type row struct {
	Name  string
	Cells []pageCell
}

type pageCell struct{ Class, Title, Mark string }

// WriteHTML writes the matrix as one page without scripts and without references to
// anything else. All names are escaped.
func (m *Matrix) WriteHTML(w io.Writer) error {
	t, err := template.New("matrix").Parse(page)
	if err != nil {
		return fmt.Errorf("parsing the page: %w", err)
	}
	v := pageValue{By: m.By, LeftOut: m.LeftOut}
	for i, e := range m.Ends {
		v.Names = append(v.Names, e.title(i))
	}
	for _, set := range m.portSets() {
		v.Blocks = append(v.Blocks, m.block(set))
	}
	if err := t.Execute(w, v); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

func (m *Matrix) block(set []int) block {
	b := block{Heading: m.heading(set)}
	for s, e := range m.Ends {
		r := row{Name: e.title(s)}
		for d := range m.Ends {
			r.Cells = append(r.Cells, m.pageCell(set[0], s, d))
		}
		b.Rows = append(b.Rows, r)
	}
	return b
}

func (m *Matrix) pageCell(port, s, d int) pageCell {
	c := m.Cell(port, s, d)
	classes := map[Verdict]string{Allowed: "y", Denied: "n", IPv4Only: "s", IPv6Only: "s", Some: "s", NoFlow: "e"}
	p := pageCell{Class: classes[c.Verdict()], Title: c.total().String(), Mark: c.mark(m.self(s, d))}
	if n := c.total().Audited; n > 0 {
		p.Title += fmt.Sprintf(", %d only because of audit mode", n)
	}
	switch c.Verdict() {
	case IPv4Only, IPv6Only:
		p.Title = string(c.Verdict())
	case NoFlow:
		p.Title = "no flow"
		if m.self(s, d) {
			p.Title = "itself"
		}
	}
	return p
}
