// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

// installed is a node whose runtime takes its networks from a directory, as containerd
// does, in which podwall-gate is installed.
type installed struct {
	*node
	confDir, binDir string
}

func newInstalled(t *testing.T) *installed {
	t.Helper()
	n := &installed{node: newNode(t, "bridge", quick)}
	n.confDir, n.binDir = filepath.Join(n.dir, "net.d"), filepath.Join(n.dir, "bin")
	check(t, os.Mkdir(n.confDir, 0o755))
	check(t, os.Mkdir(n.binDir, 0o755))
	plugins, err := filepath.Abs(cniBin())
	check(t, err)
	for _, name := range []string{"bridge", "host-local"} {
		check(t, os.Symlink(filepath.Join(plugins, name), filepath.Join(n.binDir, name)))
	}
	n.runtime = libcni.NewCNIConfigWithCacheDir([]string{n.binDir}, filepath.Join(n.dir, "cache"), nil)
	return n
}

// kubeRouter writes 10-kuberouter.conf as kube-router's DaemonSet has it: without
// cniVersion. Its init container writes it again wherever it is missing; the range of
// addresses is kube-router's.
func (n *installed) kubeRouter() {
	n.t.Helper()
	path := filepath.Join(n.confDir, "10-kuberouter.conf")
	if _, err := os.Stat(path); err == nil {
		return
	}
	check(n.t, os.WriteFile(path, fmt.Appendf(nil, `{"name": "kubernetes", "type": "bridge", "bridge": "kube-bridge",
  "isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "10.88.0.0/24", "dataDir": %q}}`,
		filepath.Join(n.dir, "ipam")), 0o644))
}

// gate runs a command of podwall-gate.
func (n *installed) gate(command string, flags ...string) {
	n.t.Helper()
	args := append([]string{command, "--conf-dir", n.confDir, "--bin-dir", n.binDir, "--socket", n.socket}, flags...)
	out, err := exec.Command(os.Getenv(gateVariable), args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// load takes the first file by name, as containerd does, and returns its plugins.
func (n *installed) load() (plugins []string) {
	n.t.Helper()
	files, err := libcni.ConfFiles(n.confDir, []string{".conf", ".conflist", ".json"})
	check(n.t, err)
	slices.Sort(files)
	if strings.HasSuffix(files[0], ".conflist") {
		n.networks, err = libcni.ConfListFromFile(files[0])
	} else {
		var conf *libcni.PluginConfig
		conf, err = libcni.ConfFromFile(files[0]) //nolint:staticcheck // containerd reads such files this way
		check(n.t, err)
		n.networks, err = libcni.ConfListFromConf(conf) //nolint:staticcheck // containerd reads such files this way
	}
	check(n.t, err)
	for _, p := range n.networks.Plugins {
		plugins = append(plugins, p.Network.Type)
	}
	return plugins
}

// start starts a pod with one address and reports whether the agent knows it.
func (n *installed) start(s sandbox) (announced bool) {
	n.t.Helper()
	ips, _, err := n.add(s)
	check(n.t, err)
	if len(ips) != 1 {
		n.t.Fatalf("the pod has the addresses %v, want one", ips)
	}
	return n.state(s) == "enforced"
}

// bypassed removes the gate's list, as a program does that tidies the directory, and wants
// the agent to notice by the next pod.
func (n *installed) bypassed(a *agent) {
	n.t.Helper()
	lists, err := filepath.Glob(filepath.Join(n.confDir, "*-with-podwall-gate.conflist"))
	if err != nil || len(lists) != 1 {
		n.t.Fatalf("the gate's lists are %v, %v", lists, err)
	}
	check(n.t, os.Remove(lists[0]))
	n.load()
	pod := n.sandbox("s-bypass", "bypass", "5")
	if n.start(pod) {
		n.t.Error("a pod is announced without the gate's list")
	}
	n.publish(object("after", "4"), strings.Replace(object("bypass", "5"), "{phase: Pending}",
		"{phase: Running, podIP: 10.88.0.99, podIPs: [{ip: 10.88.0.99}]}", 1))
	n.await(func() bool {
		return strings.Contains(a.Log(), "pods start without the start gate") && strings.Contains(a.Log(), "pod=shop/bypass")
	})
	n.gate("install")
	n.load()
	n.del(pod)
}

// kube-router's own file has no cniVersion, and its init container writes it again. Pods
// are announced all the same, and those that ran before the gate came, and those that run
// when it goes, end under the configuration that is there then.
func TestTheGateBesideKubeRoutersOwnFile(t *testing.T) {
	n := newInstalled(t)
	n.publish(object("before", "1"), object("web", "2"), object("again", "3"), object("after", "4"))
	agent := n.startAgent()
	n.kubeRouter()
	n.load()
	before := n.sandbox("s-before", "before", "1")
	if n.start(before) {
		t.Error("a pod is announced without the gate")
	}
	n.gate("install", "--on-timeout", "refuse", "--timeout", "10s")
	want := []string{"bridge", "podwall-gate"}
	web, again, after := n.sandbox("s-web", "web", "2"), n.sandbox("s-again", "again", "3"), n.sandbox("s-after", "after", "4")
	for _, s := range []sandbox{web, again} {
		n.kubeRouter()
		if got := n.load(); !slices.Equal(got, want) || !n.start(s) {
			t.Errorf("%s starts with the plugins %v and is not announced", name(s), got)
		}
	}
	n.gate("status")
	n.bypassed(agent)
	n.del(before)
	n.del(web)
	n.gate("uninstall", "--cache-dir", filepath.Join(n.dir, "cache"))
	if got := n.load(); !slices.Equal(got, []string{"bridge"}) {
		t.Errorf("after uninstall the plugins are %v", got)
	}
	n.await(func() bool { return strings.Contains(agent.Log(), "op=off") }) // the agent expects no announcement now
	n.del(again)
	if n.start(after) {
		t.Error("a pod is announced after uninstall")
	}
	n.del(after)
	left, err := filepath.Glob(filepath.Join(n.dir, "ipam", "kubernetes", "10.88.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("pods have ended and %v are taken, %v", left, err)
	}
}
