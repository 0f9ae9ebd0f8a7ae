// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// prefix begins the names of what outlives a cluster that is killed: cgroups and
// directories. The number of its process follows.
const prefix = "podwall-cluster-"

// group is the name of a node's cgroup, below the top of each hierarchy.
func (n *Node) group() string { return fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), n.Name) }

func hierarchies() ([]string, error) {
	return mountPoints("/proc/thread-self/mountinfo", "cgroup", "cgroup2")
}

// makeGroups makes the group that the kubelet works below. In hierarchies of
// version 1 a group has no processors and no memory until it is given some.
func makeGroups(name string) error {
	tops, err := hierarchies()
	for _, top := range tops {
		dir := filepath.Join(top, name)
		if mk := os.Mkdir(dir, 0o755); mk != nil && !errors.Is(mk, fs.ErrExist) {
			err = errors.Join(err, mk)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if exists(filepath.Join(top, "cgroup.controllers")) || !exists(filepath.Join(top, file)) {
				continue
			}
			text, read := os.ReadFile(filepath.Join(top, file))
			err = errors.Join(err, read, os.WriteFile(filepath.Join(dir, file), text, 0o644))
		}
	}
	return err
}

func removeGroups(name string) error {
	tops, err := hierarchies()
	for _, top := range tops {
		err = errors.Join(err, removeGroup(filepath.Join(top, name)))
	}
	return err
}

// removeGroup removes a cgroup and those below it. The kernel takes a moment to
// see that the processes in it have ended.
func removeGroup(top string) (err error) {
	for range 400 {
		var dirs []string
		_ = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil // what is gone is gone
		})
		slices.Reverse(dirs)
		err = nil
		for _, dir := range dirs {
			err = errors.Join(err, os.Remove(dir))
		}
		if err == nil {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("removing the cgroup %s: %w", top, err)
}

// removeStale removes what programs left that were killed.
func removeStale() error {
	tops, err := hierarchies()
	for _, top := range tops {
		for _, dir := range stale(top) {
			err = errors.Join(err, removeGroup(dir))
		}
	}
	for _, dir := range stale(os.TempDir()) {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// stale returns what is named after a process that does not live any more.
func stale(dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		rest, found := strings.CutPrefix(e.Name(), prefix)
		owner, _, _ := strings.Cut(rest, "-")
		if _, err := strconv.Atoi(owner); found && err == nil && !exists("/proc/"+owner) {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list
}
