// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Groups are made and removed on a machine that has cgroups of version 2 only. The
// kernel gives it those controllers only that no hierarchy of version 1 has.
func TestGroupsOfVersion2Alone(t *testing.T) {
	runtime.LockOSThread() // and never unlock: the thread ends with its mounts
	err := unix.Unshare(unix.CLONE_NEWNS)
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("it needs root")
	}
	err = errors.Join(err, unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
		unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH), unix.Mount("none", "/sys/fs/cgroup", "cgroup2", 0, ""))
	if err != nil {
		t.Fatal(err)
	}
	tops, err := hierarchies()
	if err != nil || strings.Join(tops, " ") != "/sys/fs/cgroup" {
		t.Fatalf("hierarchies are %q, %v", tops, err)
	}
	name := strings.ReplaceAll(t.Name(), "/", "-") // of no cluster, which other tests remove
	top := filepath.Join("/sys/fs/cgroup", name)
	for range 2 { // a node that starts again finds its group
		if err := makeGroups(name); err != nil {
			t.Fatal(err)
		}
	}
	if !exists(filepath.Join(top, "cgroup.procs")) {
		t.Error("there is no group")
	}
	if err := os.MkdirAll(filepath.Join(top, "kubepods", "pod1"), 0o755); err != nil { // by a kubelet
		t.Error(err)
	}
	if err := removeGroups(name); err != nil || exists(top) {
		t.Errorf("removing the group: %v", err)
	}
}
