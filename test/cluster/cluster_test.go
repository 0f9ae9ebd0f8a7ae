// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/test/cluster"
)

func TestMain(m *testing.M) {
	cluster.Enter()
	os.Exit(m.Run())
}

// start starts a cluster that ends with the test, which then looks whether
// anything is left. Outside CI the test is skipped where none can be started.
func start(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	before := machine(t)
	o.Say = t.Logf
	c, err := cluster.Start(t.Context(), o)
	if errors.Is(err, cluster.ErrCannot) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() {
		check(t, c.Close())
		after := machine(t)
		if before[connections] == "" { // the module was loaded meanwhile, and stays
			delete(before, connections)
			delete(after, connections)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the cluster left something behind (-before +after):\n%s", diff)
		}
	})
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connections is a setting that is there once connection tracking is.
const connections = "net/netfilter/nf_conntrack_max"

// machine is what a cluster could change of its machine: files and cgroups by
// their names, mounts, links, settings, and programs of ours that run.
func machine(t *testing.T) map[string]string {
	t.Helper()
	list := map[string]string{}
	ours := fmt.Sprintf("podwall-cluster-%d-", os.Getpid()) // other tests run beside this one
	for _, pattern := range []string{filepath.Join(os.TempDir(), "podwall-cluster-*"), "/sys/fs/cgroup/*/*", "/sys/fs/cgroup/podwall-*",
		"/sys/class/net/*", "/run/*", "/etc/cni/*", "/opt/*", "/var/lib/*", "/var/log/*"} {
		names, err := filepath.Glob(pattern)
		check(t, err)
		for _, name := range names {
			if strings.Contains(name, ours) || !strings.HasPrefix(name, "/sys/fs/cgroup") && !strings.Contains(name, "podwall") {
				list[name] = "is there"
			}
		}
	}
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", connections, "kernel/hostname"} {
		text, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if !errors.Is(err, os.ErrNotExist) {
			check(t, err)
		}
		list[name] = string(text)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, ours) {
			list["mounts"] += line
		}
	}
	list["programs"] = strings.Join(descendants(t), "\n")
	return list
}

// descendants are the programs that run below this one.
func descendants(t *testing.T) (list []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	check(t, err)
	for _, file := range files {
		pids, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that ended
		}
		for _, pid := range strings.Fields(string(pids)) {
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err == nil {
				list = append(list, strings.TrimSpace(string(name)))
			}
		}
	}
	slices.Sort(list)
	return list
}
