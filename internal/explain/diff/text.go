// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/podwall/podwall/internal/cluster"
)

const (
	columns  = 80
	maxNamed = 6
)

// String returns the changes for people, at most 80 columns wide where names allow it.
func (d *Diff) String() string {
	var b strings.Builder
	say := func(first, indent, text string) { b.WriteString(wrap(first, indent, text) + "\n") }
	if len(d.New) > 0 {
		say("New pods:", "  ", some(d.New))
	}
	if len(d.Gone) > 0 {
		say("Pods that are gone:", "  ", some(d.Gone))
	}
	for _, c := range d.Changes {
		verb := "closes "
		if c.Opens {
			verb = "opens  "
		}
		say(verb, "          ", fmt.Sprintf("%s → %s %s%s", c.Sources.Text, c.Destinations.Text, text(c.Ports),
			c.condition()))
		for _, cause := range c.Because {
			say("       ", "          ", cause.String())
		}
	}
	if len(d.Changes) == 0 {
		b.WriteString("No flow opens or closes.\n")
	}
	say("Compared:", "  ", text(d.Ports)+".")
	return b.String()
}

// condition says what is special about the flows.
func (c Change) condition() string {
	var list []string
	if c.only != "" {
		list = append(list, string(c.only)+" only")
	}
	switch c.With {
	case NewPods:
		list = append(list, "new pods")
	case GonePods:
		list = append(list, "pods that are gone")
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

func some(keys []cluster.Key) string {
	var names []string
	for _, k := range keys[:min(len(keys), maxNamed)] {
		names = append(names, k.String())
	}
	text := strings.Join(names, ", ")
	if more := len(keys) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// wrap breaks a text at spaces. The first line begins with first, and further lines with
// the indent.
func wrap(first, indent, text string) string {
	var lines []string
	line := first
	for word := range strings.SplitSeq(text, " ") {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			lines, line = append(lines, line), indent+word
			continue
		}
		line += " " + word
	}
	return strings.Join(append(lines, line), "\n")
}

// Schema names the form of the JSON text.
const Schema = "podwall.diff/v1"

type changeValue struct {
	Change       string     `json:"change"`
	With         With       `json:"with,omitempty"`
	Sources      groupValue `json:"sources"`
	Destinations groupValue `json:"destinations"`
	Ports        []Range    `json:"ports"`
	Families     []Family   `json:"families"`
	Flows        int        `json:"flows"`
	Because      []Cause    `json:"because,omitempty"`
}

type groupValue struct {
	Text string   `json:"text"`
	Ends []string `json:"ends"`
}

// MarshalJSON returns the form podwall.diff/v1.
func (d *Diff) MarshalJSON() ([]byte, error) {
	v := struct {
		Schema  string        `json:"schema"`
		Ports   []Range       `json:"ports"`
		New     []cluster.Key `json:"newPods,omitempty"`
		Gone    []cluster.Key `json:"gonePods,omitempty"`
		Opens   int           `json:"opens"`
		Closes  int           `json:"closes"`
		Changes []changeValue `json:"changes"`
	}{Schema: Schema, Ports: d.Ports, New: d.New, Gone: d.Gone, Changes: []changeValue{}}
	v.Opens, v.Closes = d.Flows()
	for _, c := range d.Changes {
		word := "closes"
		if c.Opens {
			word = "opens"
		}
		v.Changes = append(v.Changes, changeValue{Change: word, With: c.With, Sources: groupValue(c.Sources),
			Destinations: groupValue(c.Destinations), Ports: c.Ports, Families: c.Families, Flows: c.Flows,
			Because: c.Because})
	}
	return json.Marshal(v)
}
