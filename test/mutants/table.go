// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed mutants.txt
var text string

// mutant is one mistake: in the file, the lines old become the lines put.
type mutant struct {
	file, mistake string
	old, put      string // whole lines, each with its end
}

// table reads the embedded table.
func table() ([]mutant, error) { return parse(text) }

// parse reads a table in the form that the head of mutants.txt describes.
func parse(text string) ([]mutant, error) {
	head := regexp.MustCompile(`^(internal/\S+\.go): (.+)$`)
	var list []mutant
	open := false
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		found := head.FindStringSubmatch(line)
		switch {
		case found != nil && !open:
			list = append(list, mutant{file: found[1], mistake: found[2]})
			open = true
		case open && line == "":
			open = false
		case open && strings.ContainsAny(line[:1], "-+ "):
			list[len(list)-1].take(line[:1], line[1:]+"\n")
		case line != "" && !strings.HasPrefix(line, "#"):
			return nil, fmt.Errorf("reading mutants.txt: line %d is %q", n, line)
		}
	}
	return list, nil
}

func (m *mutant) take(sign, line string) {
	if sign != "+" {
		m.old += line
	}
	if sign != "-" {
		m.put += line
	}
}

// apply returns the file's text with the mistake in it.
func (m mutant) apply(text string) (string, error) {
	// A line end before the text makes the first line a whole line too.
	from, at := "\n"+m.old, "\n"+text
	switch n := strings.Count(at, from); {
	case m.old == "" || m.old == m.put:
		return "", fmt.Errorf("%s: %s: the mutant changes nothing", m.file, m.mistake)
	case n != 1:
		return "", fmt.Errorf("%s: %s: the lines are there %d times, want once", m.file, m.mistake, n)
	}
	return strings.Replace(at, from, "\n"+m.put, 1)[1:], nil
}
