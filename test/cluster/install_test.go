// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/test/cluster"
)

const root = "../.."

// onlyFriend lets the pod friend in at web, and nobody else.
const onlyFriend = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}
`

// The way of the README: the image's archive is imported on the node, the
// manifest is applied as it is, and a policy is in force. Then helm takes it over and
// uninstalls it, as docs/uninstall.md says, and the node is as before.
func TestTheManifestInstallsPodwallAndItGoesAgain(t *testing.T) {
	image := filepath.Join(root, "bin", "image", "podwall-"+runtime.GOARCH+".tar")
	if _, err := os.Stat(image); err != nil && os.Getenv("CI") != "true" {
		t.Skipf("run `make image`: %v", err)
	}
	ctx := t.Context()
	c := start(t, cluster.Options{Nodes: 2})
	k := newConsole(t, c)
	k.load(image)
	pods := cast(t, c)
	wantReached(t, c, pods["foe"], pods["web"], true) // nobody enforces yet
	before := nodeState(t, c)

	k.run("kubectl apply -f deploy/podwall.yaml")
	k.run("kubectl -n podwall-system rollout status daemonset/podwall | tail -n 1")
	k.run("kubectl -n podwall-system get pods")
	k.run("sh deploy/connectivity-check.sh")
	_, err := c.Kubectl(ctx, onlyFriend, "apply", "-f", "-")
	check(t, err)
	check(t, cluster.Await(ctx, "the policy", time.Minute, func(ctx context.Context) error {
		reached, err := c.Connects(ctx, pods["foe"], at(pods["web"]), time.Second)
		if reached {
			err = errors.New("a pod connects that the policy does not allow")
		}
		return err
	}))
	wantReached(t, c, pods["friend"], pods["web"], true)
	wantReached(t, c, pods["foe"], pods["web"], false)
	showsDenied(t, c, k, pods)
	probes(t, c, k, pods)
	showsPage(t, c, pods)
	k.save()
	uninstall(t, c, k, before)
	late, err := c.Run(ctx, cluster.PodSpec("shop", "late", c.Nodes()[0].Name, "netexec", fmt.Sprint("--http-port=", port)))
	check(t, err)
	wantReached(t, c, pods["foe"], pods["web"], true) // the policy is there, and nobody enforces it
	wantReached(t, c, late, pods["web"], true)
	wantReached(t, c, pods["foe"], late, true)
}

// showsDenied switches the records of denied flows on, as docs/flows.md says, and asks for them as an
// operator does.
func showsDenied(t *testing.T, c *cluster.Cluster, k *console, pods map[string]*cluster.Pod) {
	t.Helper()
	k.run(`kubectl -n podwall-system patch daemonset podwall --type=json -p '[{"op": "add", ` +
		`"path": "/spec/template/spec/containers/0/args/-", "value": "--denied-flows-group=7"}]'`)
	k.run("kubectl -n podwall-system rollout status daemonset/podwall | tail -n 1")
	wantReached(t, c, pods["foe"], pods["web"], false)
	var out string
	err := cluster.Await(t.Context(), "the record", time.Minute, func(context.Context) error {
		if out = k.run("kubectl podwall flows -n shop web || true"); strings.Contains(out, "shop/foe") {
			return nil
		}
		return errors.New(out)
	})
	check(t, err)
	for _, want := range []string{"8080/tcp", "no ingress rule of shop/web allows it",
		"nearest: shop/web, rule 0: its ports match, its peers do not"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("kubectl podwall flows does not say %q:\n%s", want, out)
		}
	}
	out = k.run("kubectl podwall wait shop/web --for=enforced && kubectl podwall status")
	for _, want := range []string{"shop/web is enforced on ", fmt.Sprintf("%[1]d of %[1]d nodes enforce all policies", len(c.Nodes()))} {
		if !strings.Contains(out, want) {
			t.Errorf("the status does not say %q:\n%s", want, out)
		}
	}
	out = k.run("kubectl podwall bundle -o - | tar -xzO podwall-bundle/bundle.json " +
		"podwall-bundle/nodes/" + c.Nodes()[0].Name + "/ruleset.nft podwall-bundle/nodes/" + c.Nodes()[0].Name + "/status.json")
	for _, want := range []string{`"missing": []`, "# table inet podwall: the kernel has exactly this\n", `"ready": true`} {
		if !strings.Contains(out, want) {
			t.Errorf("the bundle does not say %q:\n%s", want, out)
		}
	}
	out = k.run("timeout -s INT 5 kubectl podwall flows -A --follow -o json || true")
	if !strings.Contains(out, `"name":"foe"`) || strings.Contains(out, "UnhandledError") {
		t.Errorf("followed flows:\n%s", out)
	}
}

// cast are the pods of the namespace shop.
func cast(t *testing.T, c *cluster.Cluster) map[string]*cluster.Pod {
	t.Helper()
	check(t, c.Namespace(t.Context(), "shop"))
	pods := map[string]*cluster.Pod{}
	for _, name := range []string{"web", "friend", "foe"} {
		p, err := c.Run(t.Context(), cluster.PodSpec("shop", name, c.Nodes()[0].Name, "netexec", fmt.Sprint("--http-port=", port)))
		check(t, err)
		pods[name] = p
	}
	return pods
}

const port = 8080

func at(p *cluster.Pod) netip.AddrPort { return netip.AddrPortFrom(p.IPs[0], port) }

func wantReached(t *testing.T, c *cluster.Cluster, from, to *cluster.Pod, want bool) {
	t.Helper()
	patience := time.Minute
	if !want {
		patience = 2 * time.Second
	}
	got, err := c.Connects(t.Context(), from, at(to), patience)
	check(t, err)
	if got != want {
		t.Errorf("%s reaches %s: %t, want %t", from.Name, to.Name, got, want)
	}
}
