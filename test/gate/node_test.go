// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/launch"
)

// node is a network namespace with a runtime: the library that runtimes run CNI
// plugins with, and what they keep on disk.
type node struct {
	t           *testing.T
	ns          *netns.NS
	dir         string
	manifests   string
	unreachable bool // the API server, which is then the source instead of manifests
	socket      string
	runtime     *libcni.CNIConfig
	networks    *libcni.NetworkConfigList
	plugin      string // that wires pods
}

// settings are the fields of our plugin's entry in the configuration.
type settings string

const quick settings = `"timeout": "300ms"`

// eachPlugin runs a test on a node with each of the plugins that wire pods.
func eachPlugin(t *testing.T, s settings, test func(t *testing.T, n *node)) {
	for _, plugin := range []string{"bridge", "ptp"} {
		t.Run(plugin, func(t *testing.T) { test(t, newNode(t, plugin, s)) })
	}
}

func newNode(t *testing.T, plugin string, s settings) *node {
	t.Helper()
	ns := newNamespace(t)
	// A Unix socket's path is short; that of t.TempDir need not be.
	dir, err := os.MkdirTemp("", "podwall-gate-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	n := &node{t: t, ns: ns, dir: dir, plugin: plugin, manifests: filepath.Join(dir, "manifests"), socket: filepath.Join(dir, "gate.sock")}
	check(t, os.Mkdir(n.manifests, 0o700))
	cache := filepath.Join(dir, "cache")
	n.runtime = libcni.NewCNIConfigWithCacheDir([]string{cniBin(), filepath.Dir(os.Getenv(gateVariable))}, cache, nil)
	n.networks, err = libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{
  "cniVersion": "1.1.0", "name": "pods", "plugins": [
    {"type": %q, %s "ipMasq": false,
     "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
    {"type": "podwall-gate", "socket": %q, %s}]}`, plugin, map[string]string{"bridge": `"bridge": "cni0", "isGateway": true,`}[plugin], filepath.Join(dir, "ipam"), n.socket, s)))
	check(t, err)
	return n
}

// newNamespace makes an empty namespace in which addresses may be used at once,
// as a pod's first packet does. IP filtering of bridges is off in it, as on a
// node before anybody switched it on.
func newNamespace(t *testing.T) *netns.NS {
	t.Helper()
	ns := shortLived(t)
	t.Cleanup(func() { check(t, ns.Close()) })
	return ns
}

// shortLived is newNamespace for one that the caller closes.
func shortLived(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	check(t, err)
	check(t, ns.SetSysctls([]netns.Sysctl{
		{Path: "ipv6/conf/default/accept_dad", Value: "0"}, {Path: "ipv6/conf/default/dad_transmits", Value: "0"},
		{Path: "bridge/bridge-nf-call-iptables", Value: "0", Optional: true}, {Path: "bridge/bridge-nf-call-ip6tables", Value: "0", Optional: true},
	}))
	return ns
}

// check fails the test at once. It is for what must work before anything can be
// tested.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// publish makes a file the only manifest, in one step.
func (n *node) publish(docs ...string) {
	n.t.Helper()
	docs = append(docs, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
	next := filepath.Join(n.dir, "next")
	check(n.t, os.WriteFile(next, []byte(strings.Join(docs, "---\n")), 0o600))
	check(n.t, os.Rename(next, filepath.Join(n.manifests, "cluster.yaml")))
}

// object is a pod as it is before it started: bound, without an address.
func object(name, uid string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, uid: %q, labels: {app: %s}}\n"+
		"spec: {nodeName: node1, containers: [{name: main, image: none}]}\nstatus: {phase: Pending}\n", name, uid, name)
}

// onlyFromFriend lets the pod friend in at web, and nobody else.
const onlyFromFriend = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n" +
	"spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}\n"

// agent is a podwall-agent in the node.
type agent struct {
	*launch.Process
	t *testing.T
}

// source is where the agent reads the cluster.
func (n *node) source() string {
	if n.unreachable {
		return "--master=http://127.0.0.1:1"
	}
	return "--manifests=" + n.manifests
}

// startAgent starts an agent and returns when it enforces something.
func (n *node) startAgent(args ...string) *agent {
	n.t.Helper()
	cmd := exec.Command(agentProgram(), append([]string{n.source(), "--hostname-override=node1",
		"--gate-socket", n.socket, "--log-format=text", "-v=1"}, args...)...)
	a := &agent{launch.Start(n.t, n.ns, "agent", patience, cmd), n.t}
	n.await(func() bool {
		_, err := gate.Client{Socket: n.socket}.List(n.t.Context())
		return err == nil
	})
	return a
}

// soon calls what must succeed in the end until it does. A gate that waits 300 ms may be too early for an agent
// on a busy machine; runtimes ask again, too.
func (n *node) soon(what func(context.Context) error) {
	n.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = n.in(what); err == nil {
			return
		}
	}
	n.t.Fatal(err)
}

// patience is how long anything may take that is right in the end.
const patience = 2 * time.Minute

// await returns when a condition holds.
func (n *node) await(holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatal("a condition does not come true")
		}
	}
}

// sandbox is a pod's network namespace and what the runtime knows about it.
type sandbox struct {
	ns   *netns.NS
	conf *libcni.RuntimeConf
}

func (n *node) sandbox(id, name, uid string) sandbox {
	n.t.Helper()
	ns := newNamespace(n.t)
	return sandbox{ns, &libcni.RuntimeConf{ContainerID: id, NetNS: ns.Path(), IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", name}, {"K8S_POD_INFRA_CONTAINER_ID", id}, {"K8S_POD_UID", uid}}}}
}

// state asks the agent about a sandbox.
func (n *node) state(s sandbox) gate.State {
	n.t.Helper()
	r, err := gate.Client{Socket: n.socket}.Check(n.t.Context(), s.conf.ContainerID)
	check(n.t, err)
	return r.State
}

// in runs a call of the CNI library as a runtime does: in the node's namespace.
func (n *node) in(call func(ctx context.Context) error) error {
	return n.ns.Do(func() error { return call(n.t.Context()) })
}

func (n *node) del(s sandbox) {
	n.t.Helper()
	check(n.t, n.in(func(ctx context.Context) error { return n.runtime.DelNetworkList(ctx, n.networks, s.conf) }))
}

// runPlugin runs our plugin alone, as the library does.
func (n *node) runPlugin(command string, config []byte) error {
	cmd := exec.Command(os.Getenv(gateVariable))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_PATH=" + cniBin()}
	cmd.Stdin = bytes.NewReader(config)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}
