// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// front is the way on which the runtime tells the gate of a pod.
type front string

const (
	none   front = "plain" // it does not
	byCNI  front = "gated" // podwall-gate is chained in the network's configuration
	byNRI  front = "nri"   // podwall-gate nri runs beside the runtime
	onNode       = "node1"
)

// handler is the runtime's name for a configuration with the gate, or without.
func (f front) handler() string {
	if f == byCNI {
		return string(byCNI)
	}
	return string(none)
}

// node is a network namespace with containerd, and an agent if the test starts
// one.
type node struct {
	t          *testing.T
	front      front
	wiring     string // the CNI plugin that wires pods
	ns         *netns.NS
	dir        string
	socket     string // of the agent's gate
	containerd *program
	cri        *client
}

// newNode returns a node with a runtime that is ready for pods.
func newNode(t *testing.T, f front) *node {
	t.Helper()
	return newNodeWith(t, f, "bridge")
}

func newNodeWith(t *testing.T, f front, wiring string) *node {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "node-")
	check(t, err)
	n := &node{t: t, front: f, wiring: wiring, ns: newNetwork(t), dir: dir, socket: filepath.Join(dir, "gate.sock")}
	// Without the gate nobody knows a pod on the bridge, so nobody switches it.
	shown := map[front]string{none: "1"}[f]
	check(t, n.ns.SetSysctls([]netns.Sysctl{{Path: "bridge/bridge-nf-call-iptables", Value: cmp.Or(shown, "0"), Optional: true}}))
	check(t, errors.Join(n.configure(), writeImage(n.path("image.tar"))))
	n.startContainerd()
	n.ctr("images", "import", "--local", n.path("image.tar"))
	if f == byNRI {
		n.startNRI()
	}
	return n
}

// ctr asks the runtime by its own command line, and returns what that prints.
func (n *node) ctr(args ...string) string {
	n.t.Helper()
	cmd := exec.Command(absolute(n.t, "containerd/ctr"), append([]string{"-a", n.path("containerd.sock"), "-n", "k8s.io"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// configure writes what the runtime reads. oom_score_adj may not be lowered in
// all the places where these tests run.
func (n *node) configure() error {
	runtime := func(f front) string {
		return fmt.Sprintf("[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%s]\nruntime_type = 'io.containerd.runc.v2'\ncni_conf_dir = %q\n", f, n.path(string(f)))
	}
	config := fmt.Sprintf(`version = 3
root = %q
state = %q
[grpc]
address = %q
[plugins.'io.containerd.internal.v1.opt']
path = %q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
disable_apparmor = true
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
use_internal_loopback = true
bin_dirs = [%q]
conf_dir = %q
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'plain'
%s%s[plugins.'io.containerd.nri.v1.nri']
disable = false
socket_path = %q
plugin_path = %q
plugin_config_path = %q
`, n.path("root"), n.path("state"), n.path("containerd.sock"), n.path("opt"), image, n.path("cni"), n.path(n.front.handler()),
		runtime(none), runtime(byCNI), n.path("nri.sock"), n.path("plugins"), n.path("plugins.d"))
	files := map[string]string{"containerd.toml": config, "plain/net.conflist": n.network(""),
		"gated/net.conflist": n.network(fmt.Sprintf(`, {"type": "podwall-gate", "socket": %q, "timeout": "2s"}`, n.socket))}
	var err error
	for _, dir := range []string{"plain", "gated", "cni", "manifests"} {
		err = errors.Join(err, os.Mkdir(n.path(dir), 0o700))
	}
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(n.path(name), []byte(text), 0o600))
	}
	for _, program := range []string{"cni/bridge", "cni/ptp", "cni/host-local", "podwall-gate"} {
		err = errors.Join(err, os.Symlink(absolute(n.t, program), n.path("cni/"+filepath.Base(program))))
	}
	return err
}

// network is the pod network, with a further plugin.
func (n *node) network(more string) string {
	return fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "plugins": [
{"type": %q, %s "ipMasq": false,
 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}%s]}`,
		n.wiring, map[string]string{"bridge": `"bridge": "cni0", "isGateway": true,`}[n.wiring], n.path("ipam"), more)
}

// startContainerd returns when the runtime answers.
func (n *node) startContainerd() {
	n.t.Helper()
	n.containerd = n.start(absolute(n.t, "containerd/containerd"), "--config", n.path("containerd.toml"))
	n.cri = connect(n.t, n.path("containerd.sock"))
	await(n.t, "containerd answers", n.cri.ready)
	n.t.Cleanup(n.removePods) // while this containerd runs
}

// startNRI returns when the runtime has told the plugin what runs.
func (n *node) startNRI() *program {
	n.t.Helper()
	before := n.synchronized()
	p := n.start(absolute(n.t, "podwall-gate"), "nri", "--nri-socket", n.path("nri.sock"), "--socket", n.socket, "--log-format", "text")
	n.awaitNRI(before)
	return p
}

func (n *node) synchronized() int { return n.containerd.logs("connected and synchronized") }

func (n *node) awaitNRI(before int) {
	n.t.Helper()
	await(n.t, "the NRI plugin is connected", func() bool { return n.synchronized() > before })
}

// startAgent starts an agent and returns when its gate answers.
func (n *node) startAgent() *program {
	n.t.Helper()
	a := n.start(absolute(n.t, "podwall-agent"), "--manifests", n.path("manifests"), "--hostname-override", onNode, "--gate-socket", n.socket, "--log-format=text", "-v=1")
	await(n.t, "the agent answers", func() bool {
		_, err := gate.Client{Socket: n.socket}.List(n.t.Context())
		return err == nil
	})
	return a
}

// publish makes these the only objects of the cluster, in one step.
func (n *node) publish(docs ...string) {
	n.t.Helper()
	docs = append(docs, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
	check(n.t, os.WriteFile(n.path("next"), []byte(strings.Join(docs, "---\n")), 0o600))
	check(n.t, os.Rename(n.path("next"), n.path("manifests/cluster.yaml")))
}

// object is a pod as it is before it started: bound, without an address.
func object(name string) string { return objectAt(name, "") }

// objectAt is a pod whose address the API knows.
func objectAt(name, ip string) string {
	status := "{phase: Pending}"
	if ip != "" {
		status = fmt.Sprintf("{phase: Running, podIP: %s, podIPs: [{ip: %s}]}", ip, ip)
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, uid: %q, labels: {app: %s}}\n"+
		"spec: {nodeName: %s, containers: [{name: main, image: none}]}\nstatus: %s\n", name, uid(name), name, onNode, status)
}

func uid(name string) string { return "uid-of-" + name }

// onlyFromFriend lets the pod friend in at web, and nobody else.
const onlyFromFriend = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n" +
	"spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}\n"

// announced returns what the agent was told, as "name uid network state".
func (n *node) announced() []string {
	n.t.Helper()
	list, err := gate.Client{Socket: n.socket}.List(n.t.Context())
	check(n.t, err)
	var texts []string
	for _, k := range list {
		texts = append(texts, fmt.Sprintf("%s %s %s %s", k.Pod.Name, k.Pod.UID, k.Pod.Network, k.State))
	}
	slices.Sort(texts)
	return texts
}

// said is what the agent should have been told of pods that are enforced.
func (n *node) said(names ...string) []string {
	network := map[front]string{byCNI: "pods", byNRI: "nri"}[n.front]
	var texts []string
	for _, name := range names {
		texts = append(texts, fmt.Sprintf("%s %s %s %s", name, uid(name), network, gate.Enforced))
	}
	slices.Sort(texts)
	return texts
}

// wantAnnounced compares at once: an answer of the runtime is a promise.
func (n *node) wantAnnounced(names ...string) {
	n.t.Helper()
	if got, want := n.announced(), n.said(names...); !slices.Equal(got, want) {
		n.t.Errorf("announced are %q, want %q", got, want)
	}
}

// drops returns how many packets no ingress rule of a policy allowed.
func (n *node) drops() uint64 {
	n.t.Helper()
	c, err := ruleset.Open(n.ns.FD())
	check(n.t, err)
	defer c.Close()
	packets, err := ruleset.Counters(c)
	check(n.t, err)
	return packets[ruleset.CounterIngress]
}
