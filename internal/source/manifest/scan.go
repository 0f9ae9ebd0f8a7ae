// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/json"
	"strings"
)

// scanner splits the text of a file into documents, so that every byte of it is in a document, in a
// comment, or the file is refused:
//
//   - JSON objects may follow each other, in lines or in one, as in a JSON stream,
//     and anything may follow them.
//   - All other documents end at the next document marker or at the end of the
//     text. The YAML reader then reports whether it read them to their end.
type scanner struct {
	file  string
	text  []byte
	at    int // the text before it was read
	line  int // the line of at, from 1
	count int // documents so far
}

func newScanner(file string, text []byte) *scanner { return &scanner{file: file, text: text, line: 1} }

// next returns the next document, nil after the last one.
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

// skip skips byte order marks, empty lines, comments, documents that are only null, and markers
// that only a comment follows.
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

// goesOn reports whether the first line that is neither empty nor a comment is indented: then it
// continues the text before it.
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

// markerSize returns the size of the document marker at the start of the line, 0 if there is none.
// YAML requires a blank after it. kubectl also accepts Unicode blanks, and a comment directly after
// it.
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

// yamlEnd returns the end of the YAML document at the start of the text. The markers cannot occur
// inside a document: YAML forbids them in the first column. Directives belong to the document after
// the marker that ends them.
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

// firstJSON returns the JSON object at the start of the text, nil if there is none.
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
