// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/tools/internal/programs"
)

// podNetwork is the configuration of a pod network to which the gate is added.
const podNetwork = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]}
`

// Programs of all architectures answer alike: the rules that a node would load, who reaches
// whom, and the CNI configuration with the gate and without it again. An emulator of user
// programs has no nftables, so nothing is loaded here.
func TestAllArchitecturesAnswerAlike(t *testing.T) {
	manifests := t.TempDir()
	for _, file := range []string{"demo/cluster.yaml", "seed/3-from-namespace.yaml", "seed/4-egress-to-cidr.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../examples", file))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(manifests, filepath.Base(file)), text, 0o644))
	}
	var first map[string]string
	for _, arch := range programs.Architectures() {
		got := answers(t, arch, manifests)
		for what, text := range got {
			if text == "" {
				t.Errorf("%s: no %s", arch, what)
			}
		}
		if first == nil {
			first = got
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Errorf("-%s +%s:\n%s", programs.Architectures()[0], arch, diff)
		}
	}
}

func answers(t *testing.T, arch, manifests string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	check(t, programs.Build(t.Context(), "../..", testVersion, programs.Linux(arch), dir, programs.Lab, programs.Plugin))
	gate := filepath.Join(dir, "podwall-gate")
	check(t, os.WriteFile(gate, unpacked(t, arch)["usr/bin/podwall-gate"].text, 0o755))
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := command(t, arch, program, args...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %s: %v", arch, cmd, err)
		}
		return string(out)
	}
	got := map[string]string{
		"rules":  run(filepath.Join(dir, programs.Lab), "ruleset", "-f", manifests, "--node", "node1"),
		"matrix": run(filepath.Join(dir, programs.Plugin), "matrix", "-f", manifests, "-o", "json"),
	}
	conf, bin := filepath.Join(dir, "net.d"), filepath.Join(dir, "bin")
	check(t, os.MkdirAll(conf, 0o755))
	check(t, os.MkdirAll(bin, 0o755))
	list := filepath.Join(conf, "10-pods.conflist")
	check(t, os.WriteFile(list, []byte(podNetwork), 0o600))
	places := []string{"--conf-dir=" + conf, "--bin-dir=" + bin}
	run(gate, append([]string{"install"}, places...)...)
	text, err := os.ReadFile(list)
	check(t, err)
	if string(text) == podNetwork {
		t.Errorf("%s: the gate is not in its configuration", arch)
	}
	got["configuration"] = string(text)
	run(gate, append([]string{"uninstall", "--cache-dir=" + dir}, places...)...)
	text, err = os.ReadFile(list)
	check(t, err)
	if string(text) != podNetwork {
		t.Errorf("%s: the gate left the configuration\n%s", arch, text)
	}
	return got
}
