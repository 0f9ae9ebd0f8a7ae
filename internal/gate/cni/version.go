// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
)

// chainVersion is written where a configuration has an older version of the
// specification, or none, as kube-router's 10-kuberouter.conf. It is below 0.4.0, from
// which on a runtime would end the pods that run already by results that it noted in
// the older form.
const chainVersion = "0.3.1"

// askTime is how long a plugin may take to say which versions it speaks.
const askTime = 10 * time.Second

// chained returns the list in a version in which plugins are chained.
func (l list) chained() (list, error) {
	ok, err := l.chains()
	if err != nil || ok {
		return l, err
	}
	return l.withVersion(chainVersion), nil
}

// mayChain wants each plugin of a list to speak the version to which chained raises it:
// else no pod could start.
func (i Installer) mayChain(f found) error {
	ok, err := f.list.chains()
	if err != nil || ok {
		return err
	}
	for _, name := range programs(f.list) {
		if err := i.speaks(name); err != nil {
			return fmt.Errorf("cniVersion: %q has no chained plugins, and %s cannot be used instead: %w",
				f.list.version, chainVersion, err)
		}
	}
	i.say("%s: cniVersion: %q has no chained plugins; %s is used, which its plugins speak", f.name, f.list.version,
		chainVersion)
	return nil
}

// programs returns the programs that a list runs, those that give addresses included.
func programs(l list) (names []string) {
	for _, raw := range l.without().plugins {
		var p struct {
			Type string `json:"type"`
			IPAM struct {
				Type string `json:"type"`
			} `json:"ipam"`
		}
		if json.Unmarshal(raw, &p) != nil {
			p.Type = typeOf(raw)
		}
		for _, name := range []string{p.Type, p.IPAM.Type} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// speaks asks a plugin for its versions.
func (i Installer) speaks(name string) error {
	path, err := invoke.FindInPath(name, []string{i.BinDir})
	if err != nil {
		return fmt.Errorf("%w; name the runtime's directory of plugins with --bin-dir", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	info, err := invoke.GetVersionInfo(ctx, path, nil)
	if err != nil {
		return fmt.Errorf("asking %s for its versions: %w; write \"cniVersion\": %q into the file's source, "+
			"kube-router's ConfigMap for example, if all its plugins speak it", path, err, chainVersion)
	}
	if !slices.Contains(info.SupportedVersions(), chainVersion) {
		return fmt.Errorf("%s speaks %v only; install a newer release of it", path, info.SupportedVersions())
	}
	return nil
}
