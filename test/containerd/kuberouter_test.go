// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// plugins returns the plugins of the network that containerd takes from its directory.
func (n *node) plugins() (names []string) {
	n.t.Helper()
	ctx, cancel := n.cri.context()
	defer cancel()
	r, err := n.cri.pods.Status(ctx, &cri.StatusRequest{Verbose: true})
	check(n.t, err)
	var config struct {
		Networks []struct {
			Config struct {
				Plugins []struct{ Network struct{ Type string } }
			}
		}
	}
	check(n.t, json.Unmarshal([]byte(r.GetInfo()["cniconfig"]), &config))
	for _, network := range config.Networks {
		for _, p := range network.Config.Plugins {
			if p.Network.Type != "loopback" {
				names = append(names, p.Network.Type)
			}
		}
	}
	return names
}

// kube-router's file has no cniVersion, its init container writes it wherever it is
// missing, and containerd takes the first file by name. It does so at its start and
// whenever the directory changes.
func TestContainerdTakesTheGatesListAndNotKubeRoutersFile(t *testing.T) {
	n := newNode(t, none)
	n.publish(object("web"), object("friend"))
	n.startAgent()
	file := n.path("plain/10-kuberouter.conf")
	initContainer := func() {
		t.Helper()
		check(t, os.WriteFile(file, fmt.Appendf(nil, `{"name": "pods", "type": "bridge", "bridge": "kube-bridge", "isDefaultGateway": true,
  "ipam": {"type": "host-local", "subnet": "10.88.0.0/24", "dataDir": %q}}`, n.path("ipam")), 0o600))
	}
	initContainer()
	check(t, os.Remove(n.path("plain/net.conflist")))
	await(t, "containerd takes kube-router's file", func() bool { return slices.Equal(n.plugins(), []string{"bridge"}) })
	gate := func(command string, more ...string) {
		t.Helper()
		args := append([]string{command, "--conf-dir", n.path("plain"), "--bin-dir", n.path("cni"), "--socket", n.socket}, more...)
		if out, err := exec.Command(absolute(t, "podwall-gate"), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	gate("install")
	gated := func() bool { return slices.Equal(n.plugins(), []string{"bridge", "podwall-gate"}) }
	await(t, "containerd takes the gate's list", gated)
	check(t, os.Remove(file))
	initContainer()
	n.containerd.stop(syscall.SIGTERM)
	n.startContainerd()
	if !gated() {
		t.Errorf("after kube-router wrote its file again containerd takes %v", n.plugins())
	}
	n.front = byCNI // it is told by CNI, on the configuration without the gate
	web, err := n.tryRun("web", none)
	check(t, err)
	n.wantAnnounced("web")
	gate("uninstall", "--cache-dir", "/var/lib/cni") // where containerd writes; memory of this world, see furnish
	await(t, "containerd takes kube-router's file again", func() bool { return slices.Equal(n.plugins(), []string{"bridge"}) })
	n.stop(web) // which was started with the gate's list
}
