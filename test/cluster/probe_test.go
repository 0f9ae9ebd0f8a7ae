// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/test/cluster"
)

// webService leads to the pod web.
const webService = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// probes has containers in pods ask what is explained: a flow that is denied, one that is allowed, one
// through a Service, one of a protocol that the kernel may not have, and one from an image that
// does not exist.
func probes(t *testing.T, c *cluster.Cluster, k *console, pods map[string]*cluster.Pod) {
	t.Helper()
	ctx := t.Context()
	_, err := c.Kubectl(ctx, webService, "apply", "-f", "-")
	check(t, err)
	front, err := c.Kubectl(ctx, "", "get", "service", "-n", "shop", "web", "-o", "jsonpath={.spec.clusterIP}")
	check(t, err)
	address, err := netip.ParseAddr(front)
	check(t, err)
	check(t, cluster.Await(ctx, "the Service", 2*time.Minute, func(ctx context.Context) error {
		reached, err := c.Connects(ctx, pods["friend"], netip.AddrPortFrom(address, 80), time.Second)
		if err == nil && !reached {
			err = errors.New("it leads nowhere")
		}
		return err
	}))
	const line = "kubectl podwall explain --probe --ephemeral --probe-timeout 4m -n shop "
	out := strings.Join(strings.Fields(k.run(line+"foe web:8080; echo exit status $?")), " ")
	wantSaid(t, out, "adding the ephemeral container podwall-probe-", " to pod shop/foe, with the image podwall/podwall:",
		"shop/foe to shop/web tcp:8080: denied",
		"probe: shop/foe to shop/web, tcp "+at(pods["web"]).String()+": no answer in 5 s: the packet was dropped, as explained "+
			"exit status 0")
	out = strings.Join(strings.Fields(k.run(line+"friend svc/web; echo exit status $?")), " ")
	wantSaid(t, out, "shop/friend to shop/web tcp:8080: allowed",
		"probe: shop/friend to shop/web, tcp "+at(pods["web"]).String()+": connected: the packet arrived, as explained",
		"probe: shop/friend to Service shop/web, tcp "+front+":80: connected: the packet arrived, as explained exit status 0")
	out = strings.Join(strings.Fields(k.run(line+"foe web:8080/sctp; echo exit status $?")), " ")
	if hasSCTP() {
		wantSaid(t, out, "no answer in 5 s: the packet was dropped, as explained exit status 0")
	} else {
		wantSaid(t, out, "the kernel of the node does not have this protocol: unknown exit status 3")
	}
	out = strings.Join(strings.Fields(k.run(line+"foe web:8080 --probe-image 127.0.0.1:1/podwall:1; echo exit status $?")), " ")
	wantSaid(t, out, "it does not start: ", "name an image that the node has or can pull with --probe-image", "exit status 2")
	out = k.run("kubectl get pod -n shop friend -o jsonpath='{.spec.ephemeralContainers[*].name} {.status.phase} " +
		`{.status.conditions[?(@.type=="Ready")].status}'`)
	if f := strings.Fields(out); len(f) != 3 || !strings.HasPrefix(f[0], "podwall-probe-") || f[1] != "Running" || f[2] != "True" {
		t.Errorf("the source pod is %q", out)
	}
}

// hasSCTP reports whether this kernel, which is that of the nodes, has sockets of SCTP.
func hasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

func wantSaid(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, want := range parts {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}
