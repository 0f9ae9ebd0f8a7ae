// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/lab"
)

const network = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [` +
	`{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.244.1.0/24"}}]}`

// The installer's container has no capability at all: files of root are enough, and
// where the directories are another user's it says what it lacks.
func TestTheManifestsGateInstalls(t *testing.T) {
	whole := readManifest(t, gateFile).pod
	bed, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: []string{"node1"}})
	check(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	const user = 995
	tests := []struct {
		name  string
		take  func(t *testing.T, pod *corev1.PodSpec)
		owner int      // of the directories
		says  []string // of a line; empty means that it installs
		ends  bool
	}{
		{name: "as it is"},
		{name: "mount cni-conf", take: func(t *testing.T, pod *corev1.PodSpec) { unmount(t, pod, "gate", "cni-conf") },
			ends: true, says: []string{"making /etc/cni/net.d", "read-only file system", "mount the node's directory /etc/cni/net.d"}},
		{name: "mount cni-bin", take: func(t *testing.T, pod *corev1.PodSpec) { unmount(t, pod, "gate", "cni-bin") },
			says: []string{"/opt/cni/bin", "read-only file system", "mount the node's directory /opt/cni/bin"}},
		{name: "directories of another user", owner: user,
			says: []string{"/opt/cni/bin", "permission denied", "belongs to user 995", "DAC_OVERRIDE"}},
		{name: "directories of another user, with the right", owner: user, take: func(t *testing.T, pod *corev1.PodSpec) {
			container(t, pod, "gate").SecurityContext.Capabilities.Add = []corev1.Capability{"DAC_OVERRIDE"}
		}},
	}
	if got := len(container(t, &whole, "gate").VolumeMounts); got != 2 {
		t.Errorf("the gate has %d mounts, and the tests know 2", got)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, h := whole.DeepCopy(), &host{node: bed.Node("node1"), dir: t.TempDir()}
			if tt.take != nil {
				tt.take(t, pod)
			}
			conf, bin := h.path("/etc/cni/net.d"), h.path("/opt/cni/bin")
			for _, dir := range []string{conf, bin} {
				check(t, os.MkdirAll(dir, 0o755))
			}
			check(t, os.WriteFile(filepath.Join(conf, "10-pods.conflist"), []byte(network), 0o644))
			for _, path := range []string{conf, bin, filepath.Join(conf, "10-pods.conflist")} {
				check(t, os.Chown(path, tt.owner, tt.owner))
			}
			g := h.start(t, pod, "gate", nil)
			if len(tt.says) > 0 {
				await(t, "a word about what is missing", func() bool { return hasLine(g.Log(), tt.says) })
				if tt.ends {
					g.Exits(1)
				}
				return
			}
			g.Await("the entry", func() bool {
				text, err := os.ReadFile(filepath.Join(conf, "10-pods.conflist"))
				return err == nil && strings.Contains(string(text), "podwall-gate")
			}, g.Log)
			if info, err := os.Stat(filepath.Join(bin, "podwall-gate")); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("the plugin: %v, %v", info, err)
			}
		})
	}
}

func hasLine(text string, parts []string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}
