// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/json"
	"strings"
)

// scanner cuts the text of a file into documents, so that every byte of it is in
// a document, in a comment, or in front of an error:
//
//   - JSON objects may follow each other, in lines or in one, as in a JSON stream,
//     and anything may follow them.
//   - All other documents end at the next document marker or at the end of the
//     text. The YAML reader then says whether it read them to their end.
type scanner struct {
	file  string
	text  []byte
	at    int // what is before was read
	line  int // the line of at, from 1
	count int // documents so far
}

func newScanner(file string, text []byte) *scanner { return &scanner{file: file, text: text, line: 1} }

// next returns the next document, nil behind the last one.
func (s *scanner) next() *document {
	s.skip()
	rest := s.text[s.at:]
	if len(rest) == 0 {
		return nil
	}
	s.count++
	d := &document{file: s.file, line: s.line, index: s.count, tree: new(tree)}
	blank := blanks(rest)
	if value := firstJSON(rest[blank:]); value != nil {
		d.text, d.json = value, value
		s.advance(blank + len(value))
		s.at += blanks(s.text[s.at:])
		return d
	}
	d.text = rest[:yamlEnd(rest)]
	s.advance(len(d.text))
	return d
}

func blanks(text []byte) int { return len(text) - len(bytes.TrimLeft(text, " \t")) }

func (s *scanner) advance(n int) {
	s.line += countLines(s.text[s.at : s.at+n])
	s.at += n
}

// skip goes past byte order marks, empty lines, comments, nulls that are all of
// their document, and markers that have nothing but a comment behind them.
func (s *scanner) skip() {
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		if bytes.HasPrefix(rest, mark) {
			s.at += len(mark)
			continue
		}
		line, size := firstLine(rest)
		content := bytes.TrimSpace(line[markerSize(line):])
		switch {
		case string(content) == "null" && !goesOn(rest[size:]):
			s.count++
		case len(content) > 0 && content[0] != '#':
			return
		}
		s.advance(size)
	}
}

// goesOn reports whether the first line that is not empty and no comment is
// indented: then it is a part of what stands before it.
func goesOn(text []byte) bool {
	for len(text) > 0 {
		line, size := firstLine(text)
		if content := bytes.TrimSpace(line); len(content) > 0 && content[0] != '#' {
			return blanks(line) > 0
		}
		text = text[size:]
	}
	return false
}

// markerSize returns the size of the document marker with which the line begins,
// 0 if it begins with none. YAML wants a blank behind it. kubectl also takes what
// is blank in Unicode only, and a comment at once.
func markerSize(line []byte) int {
	const size = len("---")
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return 0
	}
	rest := line[size:]
	if len(bytes.TrimSpace(rest)) == 0 || strings.IndexByte(" \t#", rest[0]) >= 0 {
		return size
	}
	return 0
}

// yamlEnd returns where the YAML document ends with which the text begins. The
// markers cannot occur inside a document: YAML forbids them in the first column.
// Directives belong to the document behind the marker that ends them.
func yamlEnd(text []byte) int {
	directives := isDirective(text)
	at := 0
	for at < len(text) {
		line, size := firstLine(text[at:])
		line = bytes.TrimPrefix(line, mark)
		switch {
		case at == 0 || markerSize(line) == 0 && (directives || !isDirective(line)):
		case directives && line[0] == '-':
			directives = false
		default:
			return at
		}
		at += size
	}
	return at
}

func isDirective(line []byte) bool {
	return bytes.HasPrefix(line, []byte("%YAML")) || bytes.HasPrefix(line, []byte("%TAG"))
}

// firstJSON returns the JSON object with which the text begins, nil if it begins
// with none.
func firstJSON(text []byte) []byte {
	if len(text) == 0 || text[0] != '{' {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	var value json.RawMessage
	if decoder.Decode(&value) != nil {
		return nil
	}
	return text[:decoder.InputOffset()]
}
