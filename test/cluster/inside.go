// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The first process of a node finds in its environment what it is.
const (
	nameVariable = "PODWALL_CLUSTER_NODE" // its host name
	diskVariable = "PODWALL_CLUSTER_DISK" // the directory that holds its files
)

// Enter must be called first in main, or in TestMain. In the first process of a
// node, which is this program again, it does not return.
func Enter() {
	name, disk := os.Getenv(nameVariable), os.Getenv(diskVariable)
	if name == "" {
		return
	}
	if err := furnish(name, disk); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(furnished)
	reap()
}

const furnished = "furnished"

// reap collects the processes that nobody waits for, as a node's first process
// does, until it is killed.
func reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}

// furnish gives the node its own view of files.
func furnish(name, disk string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cutting the mounts off from others': %w", err)
	}
	// Namespaces of others that are mounted somewhere would live as long as this
	// node.
	err := unmountAll("nsfs")
	err = errors.Join(err, unix.Mount("proc", "/proc", "proc", 0, ""), mountSys(disk),
		mount("tmpfs", "/run", "tmpfs", 0, "mode=755"), os.Mkdir("/run/lock", 0o755))
	for _, dir := range []string{"/etc", "/opt", "/var/lib", "/var/log"} {
		err = errors.Join(err, layer(dir, disk))
	}
	// What holds layers of its own must not lie on one.
	for _, dir := range []string{"/var/lib/containerd", "/var/lib/kubelet"} {
		own := filepath.Join(disk, filepath.Base(dir))
		err = errors.Join(err, os.MkdirAll(own, 0o700), os.MkdirAll(dir, 0o700), mount(own, dir, "", unix.MS_BIND, ""))
	}
	err = errors.Join(err, shadowSysctls(), unix.Sethostname([]byte(name)))
	// Pods may share mounts with the node, so they must be able to spread.
	return errors.Join(err, unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""))
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", source, target, err)
	}
	return nil
}

// mountSys shows the links of this node's network namespace below /sys, and the
// machine's cgroups, which a new /sys does not have.
func mountSys(disk string) error {
	keep := filepath.Join(disk, "cgroup")
	return errors.Join(os.MkdirAll(keep, 0o700),
		mount("/sys/fs/cgroup", keep, "", unix.MS_BIND|unix.MS_REC, ""),
		mount("sysfs", "/sys", "sysfs", 0, ""),
		mount(keep, "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""),
		unix.Unmount(keep, unix.MNT_DETACH))
}

// layer lets the node write to a directory of the machine without changing it.
func layer(dir, disk string) error {
	top := filepath.Join(disk, "layer", strings.ReplaceAll(dir[1:], "/", "-"))
	upper, work := filepath.Join(top, "upper"), filepath.Join(top, "work")
	return errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755),
		mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)))
}

// shadowSysctls puts files over the settings that a kubelet makes for the whole
// machine. They have the values that it wants, so it writes nothing.
func shadowSysctls() (err error) {
	for name, value := range map[string]string{"vm/overcommit_memory": "1", "vm/panic_on_oom": "0",
		"kernel/panic":         "10",
		"kernel/panic_on_oops": "1", "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000"} {
		file := filepath.Join("/run/sysctl", name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(value+"\n"), 0o644),
			mount(file, filepath.Join("/proc/sys", name), "", unix.MS_BIND, ""))
	}
	return err
}

// unmountAll takes away the mounts of these types in this mount namespace.
func unmountAll(types ...string) error {
	places, err := mountPoints("/proc/self/mountinfo", types...)
	for _, place := range slices.Backward(places) {
		err = errors.Join(err, unix.Unmount(place, unix.MNT_DETACH))
	}
	return err
}

// mountPoints returns where file systems of these types are mounted, in the
// order of mounting.
func mountPoints(table string, types ...string) (list []string, err error) {
	text, err := os.ReadFile(table)
	if err != nil {
		return nil, fmt.Errorf("reading the mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		left, right, _ := strings.Cut(line, " - ")
		if f, g := strings.Fields(left), strings.Fields(right); len(f) > 4 && len(g) > 0 && slices.Contains(types,
			g[0]) {
			list = append(list, f[4])
		}
	}
	return list, nil
}

// exists reports whether there is a file, and no error in asking.
func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist) && err == nil
}
