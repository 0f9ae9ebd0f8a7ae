// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// settings are the kernel settings that we change: which bridged packets the IP hooks see. Their former
// values are kept in our table, so that a later process can restore them.
type settings struct {
	dir sysctl.Dir
	log *slog.Logger
	was map[string]string // former values, by interface
	// bridged is true if a bridge has pods as ports. blind is true if some of its packets do not reach the
	// IP hooks.
	bridged, blind bool
}

// Keys of saved values that are not interface names; an interface name cannot contain a colon.
const (
	vlanEntry  = "sysctl:vlan" // the setting for VLAN-tagged frames
	vlanWasOff = "bridge-nf-filter-vlan-tagged=0"
	// forcedEntry is kept if nat chains did not drop the self-test's packet, so that the next process does
	// not try them again on an enforcing node.
	forcedEntry = "forced:filter"
)

// keep remembers the first value found, which is the one to restore.
func (s *settings) keep(name, text string) {
	if _, known := s.was[name]; !known {
		s.was[name] = text
	}
}

// keepBridge remembers the former settings of a bridge. An earlier bridge may have had the same name.
func (s *settings) keepBridge(b inet.Path, found links.Bridged) {
	text := fmt.Sprintf("%s"+indexForm, found, b.Index)
	if index, known := indexIn(s.was[b.Link]); known && index != b.Index {
		delete(s.was, b.Link)
	}
	s.keep(b.Link, text)
}

// indexForm ends the saved text of a bridge, because its name may change.
const indexForm = " index=%d"

// indexIn returns the interface index in a saved text; ok is false if an older release saved it, which
// recorded none.
func indexIn(text string) (index int, ok bool) {
	i := strings.LastIndex(text, " index=")
	if i < 0 {
		return 0, false
	}
	n, err := fmt.Sscanf(text[i:], indexForm, &index)
	return index, n == 1 && err == nil
}

// withIndex adds the index of a bridge to the text that an older release saved, while the name still
// identifies the bridge.
func withIndex(name, text string) string {
	if _, known := indexIn(text); known || strings.Contains(name, ":") {
		return text
	}
	if index, ok := links.BridgeIndex(name); ok {
		return text + fmt.Sprintf(indexForm, index)
	}
	return text
}

// saved returns the values that the table has to keep, sorted.
func (s *settings) saved() (list []program.Saved) {
	for _, name := range slices.Sorted(maps.Keys(s.was)) {
		list = append(list, program.Saved{Name: name, Text: s.was[name]})
	}
	return list
}

// show makes the bridges pass their packets to the IP hooks, including VLAN-tagged ones, and remembers the
// former values, which the table of the same pass has to keep.
func (s *settings) show(bridges []inet.Path) (problems []decide.Problem) {
	s.bridged, s.blind = len(bridges) > 0, false
	for _, b := range bridges {
		p := s.showOne(b)
		s.blind = s.blind || len(p) > 0
		problems = append(problems, p...)
	}
	return problems
}

func (s *settings) showOne(b inet.Path) []decide.Problem {
	problem := func(text, cure string) []decide.Problem {
		return []decide.Problem{{Subject: "bridge " + b.Link, Text: text, Cure: cure, Blocking: true}}
	}
	found, err := links.EnforceBridge(s.dir, b.Index)
	switch {
	case errors.Is(err, links.ErrNoBridgeFilter):
		return problem("not enforcing between pods of this bridge: br_netfilter is not loaded",
			"modprobe br_netfilter on the node, and name it in a file of /etc/modules-load.d for the next boot")
	case err != nil:
		return problem("not enforcing between pods of this bridge: "+err.Error(), needsAdmin)
	case !found.All():
		s.keepBridge(b, found)
		s.log.Info("bridge now passes its packets to the IP hooks", "link", b.Link, "found", found.String(),
			"note", "a pod on it reaches itself through a Service only if its bridge port has hairpin mode")
	}
	was, err := links.FilterVLAN(s.dir)
	switch {
	case err != nil:
		return problem("VLAN-tagged frames between pods are not filtered: "+err.Error(),
			cureForSetting("bridge.bridge-nf-filter-vlan-tagged=1", err))
	case !was:
		s.keep(vlanEntry, vlanWasOff)
	}
	return nil
}

// vlanLost reports whether another program reverted the setting for VLAN-tagged frames: the kernel does not
// notify about sysctls.
func (s *settings) vlanLost() bool {
	if !s.bridged {
		return false
	}
	on, err := links.ReadVLAN(s.dir)
	return err == nil && !on
}

// putBack restores every setting.
func (s *settings) putBack() error {
	var errs []error
	for name, text := range s.was {
		if err := s.putBackOne(name, text); err != nil {
			errs = append(errs, fmt.Errorf("restoring %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *settings) putBackOne(name, text string) error {
	switch name {
	case vlanEntry:
		if err := links.SetVLAN(s.dir, false); err != nil {
			return err
		}
		s.log.Info("VLAN-tagged frames of bridges bypass the IP hooks again, as before podwall")
		return nil
	case forcedEntry:
		return nil
	}
	found, err := links.ParseBridged(text)
	if err != nil {
		return err
	}
	index, known := indexIn(text)
	if !known {
		index = links.IndexOf(name)
	}
	link, there := links.BridgeName(index)
	if !there {
		return nil // the bridge is gone, and its settings with it
	}
	if err := links.SetBridge(index, found); err != nil {
		return err
	}
	s.log.Info("bridge settings restored", "link", link, "settings", found.String())
	return nil
}
