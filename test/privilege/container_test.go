// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/launch"
)

// object is a part of the description that runc reads.
type object = map[string]any

// host stands for a node: its network is one of the lab, its files are in a
// directory.
type host struct {
	node *lab.Endpoint
	dir  string // what is / for host paths, except for those below /proc
	api  string // address and port of the API server
	// account is what the kubelet puts into the volume of the service account.
	account map[string]string
}

// box is a container.
type box struct {
	*launch.Process
	id, state string
}

var boxes atomic.Int32

// edit changes the description of a container.
type edit func(spec object)

// start runs a container of a pod as containerd does for a kubelet. Without the
// node's network it is in that of inside.
func (h *host) start(t *testing.T, pod *corev1.PodSpec, name string, inside *netns.NS, edits ...edit) *box {
	t.Helper()
	network := h.node.NS
	if !pod.HostNetwork {
		network = inside
	}
	b := &box{id: fmt.Sprintf("podwall-test-%d-%d", os.Getpid(), boxes.Add(1))}
	spec := h.spec(t, pod, container(t, pod, name), network, b.id)
	for _, e := range edits {
		e(spec)
	}
	dir := t.TempDir()
	b.state = filepath.Join(dir, "state")
	text, err := json.Marshal(spec)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600))
	unpack(t, filepath.Join(dir, "rootfs"))
	cmd := exec.Command("runc", "--root", b.state, "run", "--bundle", dir, b.id)
	// runc hands signals on, and removes the container when that has ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	t.Cleanup(func() {
		// It is gone, unless the test failed.
		_ = exec.Command("runc", "--root", b.state, "delete", "--force", b.id).Run()
	})
	b.Process = launch.Start(t, network, name+" of "+h.node.Name, patience, cmd)
	return b
}

// unpack makes the image's file system, into which runc puts what it mounts at.
func unpack(t *testing.T, dir string) {
	t.Helper()
	const bin = "usr/bin"
	check(t, os.MkdirAll(filepath.Join(dir, bin), 0o755))
	for _, name := range []string{"podwall-agent", "podwall-gate"} {
		check(t, os.Link(filepath.Join(os.Getenv(imageVariable), name), filepath.Join(dir, bin, name)))
	}
}

// spec describes a container.
func (h *host) spec(t *testing.T, pod *corev1.PodSpec, c *corev1.Container, network *netns.NS, id string) object {
	t.Helper()
	caps := rights(t, pod, c)
	user := object{"uid": int64(0), "gid": int64(0)}
	if s := c.SecurityContext; s.RunAsUser != nil {
		user["uid"] = *s.RunAsUser
	}
	args := append(append([]string{}, c.Command...), c.Args...)
	if len(c.Command) == 0 {
		args = append([]string{"/usr/bin/podwall-agent"}, args...) // the image's entry point
	}
	return object{
		"ociVersion": "1.0.2",
		"hostname":   h.node.Name, // with hostNetwork it is the node's
		"root":       object{"path": "rootfs", "readonly": *c.SecurityContext.ReadOnlyRootFilesystem},
		"process": object{"user": user, "args": args, "cwd": "/", "env": h.environment(c),
			"noNewPrivileges": !*c.SecurityContext.AllowPrivilegeEscalation,
			"capabilities":    object{"bounding": caps, "effective": caps, "permitted": caps}},
		"mounts": append(usualMounts(), h.mounts(t, pod, c)...),
		"linux": object{
			"cgroupsPath": "/" + id,
			"resources":   object{"devices": []object{{"allow": false, "access": "rwm"}}},
			"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
				{"type": "network", "path": network.Path()}},
			"maskedPaths": []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			"seccomp":       defaultSeccomp(t)},
	}
}

// defaultSeccomp is containerd's profile for a container with CAP_NET_ADMIN, which
// changes nothing in it; test/containerd compares it with containerd's own.
func defaultSeccomp(t *testing.T) object {
	t.Helper()
	text, err := os.ReadFile("testdata/seccomp.json")
	check(t, err)
	var o object
	check(t, json.Unmarshal(text, &o))
	return o
}

func (h *host) environment(c *corev1.Container) []string {
	address, port, _ := net.SplitHostPort(h.api)
	list := []string{"PATH=/usr/bin", "KUBERNETES_SERVICE_HOST=" + address, "KUBERNETES_SERVICE_PORT=" + port}
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "spec.nodeName" {
			value = h.node.Name
		}
		list = append(list, e.Name+"="+value)
	}
	return list
}

// usualMounts are those that every container gets.
func usualMounts() []object {
	return []object{
		mount("proc", "proc", "/proc", "nosuid", "noexec", "nodev"),
		mount("tmpfs", "tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
		mount("bind", "/sys", "/sys", "rbind", "ro", "nosuid", "noexec", "nodev"),
	}
}

func mount(kind, from, to string, options ...string) object {
	return object{"type": kind, "source": from, "destination": to, "options": options}
}

// mounts are those of the manifest.
func (h *host) mounts(t *testing.T, pod *corev1.PodSpec, c *corev1.Container) (list []object) {
	t.Helper()
	for _, m := range c.VolumeMounts {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		for _, v := range pod.Volumes {
			if v.Name == m.Name {
				list = append(list, mount("bind", h.source(t, v), m.MountPath, "rbind", "rprivate", access))
			}
		}
	}
	return list
}

// source is where a volume is on this machine.
func (h *host) source(t *testing.T, v corev1.Volume) string {
	t.Helper()
	switch {
	case v.HostPath != nil && strings.HasPrefix(v.HostPath.Path, "/proc/"):
		return v.HostPath.Path // which shows what whoever looks is to see
	case v.HostPath != nil:
		dir := h.path(v.HostPath.Path)
		check(t, os.MkdirAll(dir, 0o755))
		return dir
	case v.Projected != nil:
		dir := t.TempDir()
		for name, text := range h.account {
			check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		return dir
	}
	t.Fatalf("volume %s is of a kind that the test does not know", v.Name)
	return ""
}

// path is where a path of the node is on this machine.
func (h *host) path(of string) string { return filepath.Join(h.dir, of) }
