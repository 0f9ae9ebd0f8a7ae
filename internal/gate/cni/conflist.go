// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// list is a network configuration list. Fields that are not ours keep their text;
// only the order of the outermost fields may change.
type list struct {
	fields  map[string]json.RawMessage
	plugins []json.RawMessage
	name    string // of the network
	version string // of the specification, as runtimes read it; empty where none is given
	// outside are plugins that the runtimes' library loads from the directory with the
	// network's name. They run after those of the file.
	outside []json.RawMessage
}

// Entry are the settings that the installer writes into the plugin's entry.
// Empty ones are left out, so that the plugin's defaults apply.
type Entry struct {
	Type      string `json:"type"`
	Socket    string `json:"socket,omitempty"`
	Timeout   string `json:"timeout,omitempty"`
	OnTimeout string `json:"onTimeout,omitempty"`
}

// bare reports an entry without settings: those that are installed stay.
func (e Entry) bare() bool { return e == Entry{Type: Name} }

// readList reads the content of a .conflist.
func readList(data []byte) (l list, err error) {
	if err := json.Unmarshal(data, &l.fields); err != nil {
		return l, fmt.Errorf("reading the network configuration: %w", err)
	}
	if raw, ok := l.fields["plugins"]; ok {
		if err := json.Unmarshal(raw, &l.plugins); err != nil {
			return l, fmt.Errorf("reading the network configuration: plugins: %w", err)
		}
	}
	return l, l.check(data)
}

// readSingle reads a file that configures one plugin, as a list of one. Runtimes take
// every file that is no .conflist as such.
func readSingle(data []byte) (l list, err error) {
	if _, err := libcni.NetworkPluginConfFromBytes(data); err != nil {
		return l, fmt.Errorf("reading the plugin's configuration: %w", err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return l, fmt.Errorf("reading the plugin's configuration: %w", err)
	}
	l.fields = map[string]json.RawMessage{}
	for _, name := range []string{"cniVersion", "name"} {
		if v, ok := fields[name]; ok {
			l.fields[name] = v
			delete(fields, name)
		}
	}
	plugin, err := marshal(fields)
	if err != nil {
		return l, err
	}
	l.plugins = []json.RawMessage{plugin}
	whole, err := l.bytes()
	if err != nil {
		return l, err
	}
	return l, l.check(whole)
}

// check asks the library that runtimes read configurations with.
func (l *list) check(data []byte) error {
	conf, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return fmt.Errorf("reading the network configuration: %w", err)
	}
	if conf.Name == "" {
		return errors.New("reading the network configuration: name: is missing")
	}
	l.name, l.version = conf.Name, conf.CNIVersion
	return nil
}

// loadOutside reads the plugins of the directory dir/NAME, as the library does.
func (l *list) loadOutside(dir string) error {
	if raw, ok := l.fields["loadOnlyInlinedPlugins"]; !ok || string(raw) != "true" && text(raw) != "true" {
		confs, err := libcni.NetworkPluginConfsFromFiles(dir, l.name)
		if err != nil {
			return fmt.Errorf("reading the plugins in the directory %s: %w", l.name, err)
		}
		for _, c := range confs {
			l.outside = append(l.outside, c.Bytes)
		}
	}
	if len(l.plugins)+len(l.outside) == 0 {
		return errors.New("reading the network configuration: plugins: there is none")
	}
	return nil
}

// chains reports whether plugins get the result of those before them, with the pod's
// interfaces, which came with version 0.3.0 of the specification.
func (l list) chains() (bool, error) {
	ok, err := version.GreaterThanOrEqualTo(specVersion(l.version), "0.3.0")
	if err != nil {
		return false, fmt.Errorf("cniVersion: %q: %w", l.version, err)
	}
	return ok, nil
}

// specVersion is what the specification says of a missing version.
func specVersion(v string) string {
	if v == "" {
		return "0.1.0"
	}
	return v
}

// withVersion returns the list with another version of the specification.
func (l list) withVersion(v string) list {
	l.fields = maps.Clone(l.fields)
	l.fields["cniVersion"] = json.RawMessage(`"` + v + `"`)
	l.version = v
	return l
}

// loopbackOnly reports a list that wires no pods.
func (l list) loopbackOnly() bool {
	other := func(p json.RawMessage) bool { return typeOf(p) != "loopback" }
	return !slices.ContainsFunc(l.plugins, other) && len(l.outside) == 0
}

// ours returns our entries.
func (l list) ours() []json.RawMessage {
	return slices.DeleteFunc(slices.Concat(l.plugins, l.outside), func(p json.RawMessage) bool { return !isOurs(p) })
}

func isOurs(p json.RawMessage) bool { return typeOf(p) == Name }

// has reports whether there is an entry of ours.
func (l list) has() bool { return len(l.ours()) > 0 }

// settled reports whether our entry is there as it should be: once, behind another
// plugin, whose result it needs, and with these settings, unless they are bare.
func (l list) settled(e Entry) bool {
	ours := l.ours()
	if len(ours) != 1 || len(l.plugins) > 0 && isOurs(l.plugins[0]) {
		return false
	}
	if e.bare() {
		return true
	}
	var have Entry
	return json.Unmarshal(ours[0], &have) == nil && have == e
}

// without returns the list without our entries.
func (l list) without() list {
	l.plugins = slices.DeleteFunc(slices.Clone(l.plugins), isOurs)
	return l
}

// bytes writes the list for people and programs.
func (l list) bytes() ([]byte, error) {
	plugins, err := marshal(l.plugins)
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(l.fields)
	fields["plugins"] = plugins
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
