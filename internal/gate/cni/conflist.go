// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// list is a network configuration list. What is not ours is kept as it is
// written; only the order of the outermost fields may change.
type list struct {
	fields  map[string]json.RawMessage
	plugins []json.RawMessage
}

// Entry are the settings that the installer writes into the plugin's entry.
// Empty ones are left out, so that the plugin's defaults apply.
type Entry struct {
	Type      string `json:"type"`
	Socket    string `json:"socket,omitempty"`
	Timeout   string `json:"timeout,omitempty"`
	OnTimeout string `json:"onTimeout,omitempty"`
}

// readList reads a list, or a single plugin's configuration, which becomes a
// list of one.
func readList(data []byte) (l list, err error) {
	if err := json.Unmarshal(data, &l.fields); err != nil {
		return l, fmt.Errorf("reading the network configuration: %w", err)
	}
	if raw, ok := l.fields["plugins"]; ok {
		if err := json.Unmarshal(raw, &l.plugins); err != nil {
			return l, fmt.Errorf("reading the network configuration: plugins: %w", err)
		}
	} else if l, err = wrap(l.fields); err != nil {
		return l, err
	}
	return l, l.check()
}

// wrap makes a list of one plugin's configuration.
func wrap(fields map[string]json.RawMessage) (l list, err error) {
	l.fields = map[string]json.RawMessage{}
	for _, name := range []string{"cniVersion", "name"} {
		if v, ok := fields[name]; ok {
			l.fields[name] = v
			delete(fields, name)
		}
	}
	plugin, err := marshal(fields)
	l.plugins = []json.RawMessage{plugin}
	return l, err
}

// check asks the library that runtimes read configurations with.
func (l list) check() error {
	data, err := l.bytes()
	if err != nil {
		return err
	}
	conf, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return fmt.Errorf("reading the network configuration: %w", err)
	}
	if conf.Name == "" {
		return fmt.Errorf("reading the network configuration: name: is missing")
	}
	return nil
}

// chains reports whether plugins get the result of those before them.
func (l list) chains() error {
	v := text(l.fields["cniVersion"])
	if v == "" {
		v = "0.1.0" // what the specification says of its absence
	}
	if ok, err := version.GreaterThanOrEqualTo(v, "0.3.0"); err != nil || !ok {
		return fmt.Errorf("cniVersion: %q has no chained plugins; the pod network must be configured with 0.3.0 or newer", v)
	}
	return nil
}

// loopbackOnly reports a list that wires no pods.
func (l list) loopbackOnly() bool {
	return !slices.ContainsFunc(l.plugins, func(p json.RawMessage) bool { return typeOf(p) != "loopback" })
}

// has reports whether our entry is there, and whether it is this one.
func (l list) has(e Entry) (some, same bool) {
	want, err := marshal(e)
	for _, p := range l.plugins {
		if typeOf(p) == Name {
			some = true
			var have Entry
			got, errs := []byte(nil), json.Unmarshal(p, &have)
			if errs == nil {
				got, errs = marshal(have)
			}
			same = err == nil && errs == nil && bytes.Equal(want, got)
		}
	}
	return some, same
}

// with returns the list with our entry as the last, and as the only one of ours.
func (l list) with(e Entry) (list, error) {
	entry, err := marshal(e)
	if err != nil {
		return l, err
	}
	l = l.without()
	l.plugins = append(l.plugins, entry)
	return l, nil
}

// without returns the list without our entry.
func (l list) without() list {
	l.plugins = slices.DeleteFunc(slices.Clone(l.plugins), func(p json.RawMessage) bool { return typeOf(p) == Name })
	return l
}

// bytes writes the list for people and programs.
func (l list) bytes() ([]byte, error) {
	plugins, err := marshal(l.plugins)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{"plugins": plugins}
	for name, v := range l.fields {
		if name != "plugins" {
			fields[name] = v
		}
	}
	data, err := marshal(fields)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, fmt.Errorf("writing the network configuration: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// marshal writes JSON as it is, without HTML's escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing the network configuration: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

func typeOf(plugin json.RawMessage) string {
	var p struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(plugin, &p) != nil {
		return ""
	}
	return p.Type
}

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
