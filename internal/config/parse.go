// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Notice is something that the operator should read once at the start: a flag
// that was recognised and has no effect.
type Notice struct {
	Flag string // without dashes
	Text string
}

// String returns one line for people.
func (n Notice) String() string { return "--" + n.Flag + ": " + n.Text }

// UsageError is a command line that cannot be run. Its text is one line, also
// when it joins several problems. The exit code that belongs to it is 2.
type UsageError struct{ Err error }

// Error returns the problems in one line.
func (e *UsageError) Error() string { return strings.ReplaceAll(e.Err.Error(), "\n", "; ") }

// Unwrap returns the problems.
func (e *UsageError) Unwrap() error { return e.Err }

// Parse reads a command line without the program's name. env looks up
// environment variables, of which only NODE_NAME is used. When help is asked
// for it is written to out and the error is flag.ErrHelp; every other error is
// a *UsageError. The notices are in the order of the command line.
//
// Flags are written as kube-router reads them: --flag=value, --flag value,
// --switch, --switch=false, -v 2, -v=2, -v2, -V, -h. A single dash is accepted
// for long names too. The last of several equal flags counts.
func Parse(args []string, env func(string) string, out io.Writer) (Config, []Notice, error) {
	p := newParser()
	if err := p.read(args); err != nil {
		return Config{}, nil, &UsageError{err}
	}
	if p.given("help") {
		Usage(out)
		return Config{}, nil, flag.ErrHelp
	}
	if p.config.Version {
		return p.config, nil, nil
	}
	notices, problems := p.answers()
	err := errors.Join(problems, p.config.setNodeName(env, os.Hostname), p.config.Validate())
	if err != nil {
		return Config{}, nil, &UsageError{err}
	}
	return p.config, notices, nil
}

// parser holds the flags while a command line is read.
type parser struct {
	config  Config
	flags   *flag.FlagSet
	foreign map[string]foreign
	order   []string // names as they were given
}

func newParser() *parser {
	p := &parser{
		config:  Default(),
		flags:   flag.NewFlagSet("podwall-agent", flag.ContinueOnError),
		foreign: map[string]foreign{},
	}
	for _, g := range groups() {
		for _, o := range g.options {
			bound := o.bind(&p.config)
			p.flags.Var(bound, o.name, o.help)
			if o.short != "" && o.short != o.name {
				p.flags.Var(bound, o.short, o.help)
			}
		}
	}
	for _, f := range foreignFlags() {
		p.foreign[f.name] = f
		p.flags.Var(f.newValue(), f.name, f.answer)
	}
	return p
}

// read sets every flag of the command line. The flag package's own Parse would
// do, but its messages neither suggest a name nor say what a right value is.
func (p *parser) read(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, val, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		if !strings.HasPrefix(arg, "-") || name == "" {
			return p.unexpected(arg)
		}
		if level, ok := attachedLevel(name); ok && !hasValue {
			name, val, hasValue = "v", level, true
		}
		f := p.flags.Lookup(name)
		if f == nil {
			return p.unknown(name)
		}
		switch {
		case hasValue:
		case isSwitch(f):
			val = "true"
		case len(args) == 0:
			return fmt.Errorf("%s needs a value", dashed(name))
		default:
			val, args = args[0], args[1:]
		}
		if err := p.flags.Set(name, val); err != nil {
			return fmt.Errorf("%s: %w", dashed(name), err)
		}
		p.order = append(p.order, name)
	}
	return nil
}

// attachedLevel reads the form -v2, which kube-router accepts.
func attachedLevel(name string) (level string, ok bool) {
	level, ok = strings.CutPrefix(name, "v")
	return level, ok && level != "" && strings.Trim(level, "0123456789") == ""
}

func isSwitch(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func (p *parser) unexpected(arg string) error {
	if n := len(p.order); n > 0 && isSwitch(p.flags.Lookup(p.order[n-1])) {
		name := p.order[n-1]
		return fmt.Errorf("unexpected argument %q; a switch takes its value with an equals sign, as in %s=false", arg,
			dashed(name))
	}
	return fmt.Errorf("unexpected argument %q; this program takes flags only, see --help", arg)
}

func (p *parser) unknown(name string) error {
	var known []string
	p.flags.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	if near := closest(name, known); near != "" {
		return fmt.Errorf("unknown flag %s; did you mean %s?", dashed(name), dashed(near))
	}
	return fmt.Errorf("unknown flag %s; see --help", dashed(name))
}

// given reports whether a switch was turned on, under its long or short name.
func (p *parser) given(name string) bool { return p.flags.Lookup(name).Value.String() == "true" }

// answers returns what to say about flags without effect, each once.
func (p *parser) answers() ([]Notice, error) {
	var notices []Notice
	var problems []error
	said := map[string]bool{}
	for _, name := range p.order {
		if said[name] {
			continue
		}
		said[name] = true
		notice := p.config.idle(name)
		if f, ok := p.foreign[name]; ok {
			var err error
			notice, err = f.respond(p.flags.Lookup(name).Value)
			problems = append(problems, err)
		}
		if notice != nil {
			notices = append(notices, *notice)
		}
	}
	return notices, errors.Join(problems...)
}

// setNodeName fills NodeName from the environment or from the machine. The
// kubelet registers nodes under the host name in lower case.
func (c *Config) setNodeName(env func(string) string, hostname func() (string, error)) error {
	if c.NodeName == "" {
		c.NodeName = env("NODE_NAME")
	}
	if c.NodeName != "" {
		return nil
	}
	host, err := hostname()
	if err != nil {
		return fmt.Errorf("reading the host name: %w; set --hostname-override", err)
	}
	c.NodeName = strings.ToLower(strings.TrimSpace(host))
	return nil
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
