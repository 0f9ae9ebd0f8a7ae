// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// Every fenced block says what it is, and is held against what it speaks of.
func TestEveryBlockIsTrue(t *testing.T) {
	for _, p := range pages(t) {
		list, _ := p.blocks()
		for _, b := range list {
			for _, err := range wrong(b) {
				t.Errorf("%s: %v", b.where, err)
			}
		}
	}
}

// wrong returns what is wrong with a block.
func wrong(b block) []error {
	switch b.language {
	case "sh", "console":
		return wrongCommands(b)
	case "yaml":
		return wrongValues(b.text)
	case "json":
		return wrongJSON(b.text)
	case "text": // a picture, or what a program prints
		if line := regexp.MustCompile(`(?m)^(bin/)?(podwall-\w+|make|kubectl) .*`).FindString(b.text); line != "" {
			return []error{fmt.Errorf("%q is a command: say sh", line)}
		}
		return nil
	}
	return []error{fmt.Errorf("a block of %q: say sh, console, yaml or json, or text for a picture", b.language)}
}

func wrongCommands(b block) (list []error) {
	words, err := b.commands()
	switch {
	case err != nil:
		return []error{err}
	case len(words) == 0:
		return []error{errors.New("no command in it")}
	}
	for _, w := range words {
		if err := judge(w); err != nil {
			list = append(list, err)
		}
	}
	return list
}

// wrongValues checks values of the chart: each key is one that the chart has.
func wrongValues(text string) (list []error) {
	var got, all map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &got); err != nil {
		return []error{err}
	}
	values, err := os.ReadFile(filepath.Join(root, "deploy/chart/podwall/values.yaml"))
	if err := errors.Join(err, yaml.Unmarshal(values, &all)); err != nil {
		return []error{err}
	}
	if _, ok := got["groups"]; ok {
		return wrongRules(text)
	}
	return unknownKeys("", got, all)
}

// wrongRules checks alerting rules of Prometheus; TestMetricsThatAreNamedExist has their
// metrics.
func wrongRules(text string) []error {
	var file struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &file); err != nil {
		return []error{fmt.Errorf("not rules of Prometheus: %w", err)}
	}
	return nil
}

func unknownKeys(path string, got, all map[string]any) (list []error) {
	for key, v := range got {
		known, ok := all[key]
		if !ok {
			list = append(list, fmt.Errorf("the chart has no value %s%s", path, key))
			continue
		}
		deeper, isMap := v.(map[string]any)
		if values, ok := known.(map[string]any); isMap && ok && len(values) > 0 {
			list = append(list, unknownKeys(path+key+".", deeper, values)...)
		}
	}
	return list
}

// A page's code in its text is true too: command lines, flags and paths.
func TestCodeInTheTextIsTrue(t *testing.T) {
	flags := allFlags(t)
	for _, p := range pages(t) {
		for _, span := range p.spans() {
			if err := wrongSpan(flags, span); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
}

var (
	commandLine = regexp.MustCompile(`^(podwall-(agent|lab|gate)|make) `)
	aFlag       = regexp.MustCompile(`^(--[a-z0-9-]+)`)
	choice      = regexp.MustCompile(`^([a-z-]+ )([a-z]+)\|([a-z]+)(.*)$`)
)

func wrongSpan(flags []string, span string) error {
	if m := choice.FindStringSubmatch(span); m != nil && commandLine.MatchString(span) { // podwall-lab run|ruleset -f DIR
		for _, command := range m[2:4] {
			if err := wrongSpan(flags, m[1]+command+m[4]); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
	case commandLine.MatchString(span):
		if list := wrongCommands(block{span, "sh", span}); len(list) > 0 {
			return list[0]
		}
	case aFlag.MatchString(span):
		if name := aFlag.FindString(span); !slices.Contains(flags, name) {
			return fmt.Errorf("no program has the flag %s", name)
		}
	default:
		return exists(strings.TrimSuffix(span, "/"))
	}
	return nil
}

// An API server that was just started refuses everybody for a moment. The alert about
// refusals waits longer than the window in which it still sees them.
func TestARestartOfTheServerFiresNoAlert(t *testing.T) {
	rule := regexp.MustCompile(`expr: increase\(podwall_source_errors_total\{[^}]*\}\[(\w+)\]\).*\n *for: (\w+)`).
		FindStringSubmatch(read(t, "docs/operate.md"))
	if rule == nil {
		t.Fatal("the alert is not there, or fires at once")
	}
	window, err := time.ParseDuration(rule[1])
	wait, bad := time.ParseDuration(rule[2])
	if err := errors.Join(err, bad); err != nil || wait <= window {
		t.Errorf("the alert looks back %s and waits %s, %v", window, wait, err)
	}
}
