// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var yamlLine = regexp.MustCompile(`line (\d+): `)

// yamlError translates an error of the YAML library into our own. It is the only place that reads
// the library's texts.
func (d *document) yamlError(err error) error {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if at := yamlLine.FindStringSubmatchIndex(message); at != nil {
		line, _ = strconv.Atoi(message[at[2]:at[3]])
		message = message[at[1]:]
	}
	if strings.HasPrefix(message, "did not find") && line > 0 {
		line++ // the library counts these from 0
	}
	message, _, _ = strings.Cut(message, "\n")
	lines := d.lines()
	line = min(line, len(lines))
	cure := "correct the YAML; most often it is the indentation"
	switch {
	case strings.Contains(message, "invalid map key") || line > 0 && nearTemplate(lines, line):
		line, message, cure = templateOr(lines, line)
	case line > 0 && strings.Contains(message, "cannot start any token") && strings.Contains(lines[line-1], "\t"):
		message, cure = "a tab stands in the indentation", "indent with spaces only"
	case d.text[0] == ',':
		message, cure = "a comma follows the end of an object",
			"separate objects by lines of ---, or put them into one List"
	case strings.Contains(message, "<document start>"):
		message, cure = "text follows the end of the document", "separate documents by lines of ---"
	case strings.Contains(message, "control characters"):
		line = controlLine(lines)
		cure = "remove the control character, or save the file as UTF-8"
	}
	return d.errorAt(d.line-1+max(1, line), message, cure)
}

// lines returns the lines of the document without the empty ones at its end.
func (d *document) lines() []string {
	var lines []string
	for text := bytes.TrimSpace(d.text); len(text) > 0; {
		line, size := firstLine(text)
		lines, text = append(lines, string(line)), text[size:]
	}
	return lines
}

var template = regexp.MustCompile(`\{\{.*?(\}\}|$)`)

// templateAt returns the template in a line; none if it is in a comment.
func templateAt(line string) string {
	if strings.HasPrefix(strings.TrimSpace(line), "#") {
		return ""
	}
	return template.FindString(line)
}

// nearTemplate reports whether a line or its neighbours contain a template.
func nearTemplate(lines []string, line int) bool {
	for i := max(0, line-2); i < min(len(lines), line+1); i++ {
		if templateAt(lines[i]) != "" {
			return true
		}
	}
	return false
}

// templateOr returns the message that the text is a template, or, if it contains none, that a key
// is not a text.
func templateOr(lines []string, line int) (at int, message, cure string) {
	for i, l := range lines {
		if found := templateAt(l); found != "" {
			return i + 1, "the text is a template: " + quoted(found) + " was not filled in",
				"render it first, for example with helm template, and use the result"
		}
	}
	return line, "a key is no text", "write a text as key"
}

func controlLine(lines []string) int {
	for i, l := range lines {
		if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F }) {
			return i + 1
		}
	}
	return 1
}

// quoted quotes a text for a message, and truncates a long one.
func quoted(text string) string { return strconv.Quote(cut(text, 40)) }

// shown returns a name for a message, quoted only if it is not plain.
func shown(name string) string {
	name = cut(name, 350)
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func cut(text string, most int) string {
	if utf8.RuneCountInString(text) > most {
		return string([]rune(text)[:most]) + "…"
	}
	return text
}
