// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/podwall/podwall/test/cluster"
)

// footprint is what podwall can change on a node: files by their content, tables
// and links by their names, settings by their values.
func footprint(n *cluster.Node) (map[string]string, error) {
	if n.Netns() == nil {
		return nil, fmt.Errorf("%s is down", n.Name)
	}
	list := map[string]string{}
	err := errors.Join(
		files(list, n, "/etc/cni/net.d", true), files(list, n, "/opt/cni/bin", false),
		files(list, n, "/run/podwall", false),
		n.Netns().Do(func() error {
			return values(list, "/proc/sys/net", "bridge/*", "netfilter/*", "ipv6/conf/default/disable_ipv6")
		}),
		values(list, n.File("/sys/class/net"), "*/bridge/nf_call_*"))
	tables, failed := n.Run(context.Background(), "/usr/sbin/nft", "list", "tables")
	for line := range strings.Lines(tables) {
		if strings.Contains(line, "podwall") {
			list[strings.TrimSpace(line)] = "is there"
		}
	}
	links, _ := filepath.Glob(n.File("/sys/class/net/podwall*")) // the pattern is good
	for _, link := range links {
		list["link "+filepath.Base(link)] = "is there"
	}
	return list, errors.Join(err, failed)
}

// files notes the files below a directory of the node, which may not be there.
func files(list map[string]string, n *cluster.Node, dir string, content bool) error {
	top := n.File(dir)
	return filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || d.IsDir():
			return err
		}
		text := []byte("is there")
		if content {
			if text, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		list[dir+strings.TrimPrefix(name, top)] = string(text)
		return nil
	})
}

// values notes settings, but for what the kernel counts there. Those of a bridge
// that was not there before are noted only where they are not the kernel's own.
func values(list map[string]string, dir string, patterns ...string) error {
	for _, pattern := range patterns {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			isOwn := strings.Contains(name, "/bridge/nf_call_") && string(text) == "0\n"
			// Two timeouts that the service proxy sets stay, as ADR 0031 says.
			isKept := strings.HasSuffix(name, "/nf_conntrack_tcp_timeout_established") ||
				strings.HasSuffix(name, "/nf_conntrack_tcp_timeout_close_wait")
			if err != nil || strings.HasSuffix(name, "_count") || isOwn || isKept {
				continue // some cannot be read, or are gone
			}
			key := name[strings.LastIndex(name, "/net/"):]
			list["setting "+key] = strings.TrimSpace(string(text))
		}
	}
	return nil
}

// differences are sorted lines.
func differences(before, after map[string]string) (list []string) {
	keys := maps.Clone(before)
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, had := before[key]
		is, has := after[key]
		if was != is || had != has {
			list = append(list, fmt.Sprintf("%s was %q (%t), is %q (%t)", key, was, had, is, has))
		}
	}
	return list
}
