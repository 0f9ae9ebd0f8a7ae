// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/test/cluster"
)

// webManifest is a Deployment of three replicas and its Service; of a class of
// runtime, unless that is empty.
func webManifest(namespace, name, class string) string {
	if class != "" {
		class = "runtimeClassName: " + class
	}
	return webDeployment(namespace, name, 3, class) + fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {selector: {name: %[1]s}, ports: [{port: 80, targetPort: 8080}]}
`, name, namespace)
}

// webDeployment is a Deployment whose pods serve HTTP, with a further line of their
// specification. A replica goes on serving for five seconds after it was asked to end, as is
// usual behind a proxy.
func webDeployment(namespace, name string, replicas int, more string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {name: %[1]s}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 2}}
  template:
    metadata: {labels: {app: web, name: %[1]s}}
    spec:
      %[4]s
      terminationGracePeriodSeconds: 10
      containers:
      - name: main
        image: "%[5]s"
        args: [netexec, --http-port=8080, --delay-shutdown=5]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`, name, namespace, replicas, more, cluster.Agnhost)
}

// rollingUpdates replaces the pods of a Deployment, again and again, on nodes
// whose processors are busy, while a client uses its Service. With the gate and
// without it, in turns.
func rollingUpdates(ctx context.Context, t *trial) error {
	c, err := newCast(ctx, t, "rollout", places{1, 2, 1, 1})
	if err != nil {
		return err
	}
	err = t.plainRuntime(ctx)
	spinning, stop := context.WithCancel(ctx)
	defer stop()
	for range 4 {
		err = errors.Join(err, exec.CommandContext(spinning, "sh", "-c", "while :; do :; done").Start())
	}
	for _, way := range []struct{ name, class string }{{"gated", ""}, {"plain", cluster.PlainRuntime}} {
		err = errors.Join(err, t.apply(ctx, webManifest("rollout", way.name, way.class)))
	}
	for _, name := range []string{"gated", "plain"} {
		if err == nil {
			err = t.rollingUpdate(ctx, c, name)
		}
	}
	return errors.Join(err, c.remove(ctx))
}

func (t *trial) rollingUpdate(ctx context.Context, c *cast, name string) error {
	const updates = 3
	rollout := func(args ...string) error {
		_, err := t.Kubectl(ctx, "", append([]string{"rollout", "-n", c.namespace},
			append(args, "deployment/"+name)...)...)
		return err
	}
	if err := rollout("status", "--timeout=4m"); err != nil {
		return err
	}
	service, err := t.Client().CoreV1().Services(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	at, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil {
		return err
	}
	ns, err := c.friend.Netns(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }() // nothing is left in it
	callers := newCallers(ctx, ns, netip.AddrPortFrom(at, 80))
	for range updates {
		err = errors.Join(err, rollout("restart"), rollout("status", "--timeout=4m"))
	}
	callers.end()
	t.figure(name+": requests", float64(callers.asked.Load()), "")
	t.figure(name+": failed", float64(callers.failed.Load()), "")
	t.figure(name+": answered after a repetition", float64(callers.slow.Load()), "")
	if n := callers.failed.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%s: %d of %d requests failed", name, n, callers.asked.Load()))
	}
	return err
}

// callers ask a service, four at a time, each with a new connection.
type callers struct {
	asked, failed, slow atomic.Int64
	again               atomic.Int64 // whose first packet was lost and sent again
	stop                context.CancelFunc
	running             sync.WaitGroup
}

func newCallers(ctx context.Context, ns *netns.NS, at netip.AddrPort) *callers {
	c := &callers{}
	ctx, c.stop = context.WithCancel(ctx)
	for range 4 {
		c.running.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				again, err := ask(ns, at)
				c.asked.Add(1)
				if again {
					c.again.Add(1)
				}
				switch {
				case err != nil:
					c.failed.Add(1)
				case time.Since(began) > time.Second:
					c.slow.Add(1)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return c
}

func (c *callers) end() {
	c.stop()
	c.running.Wait()
}

// ask connects, asks and reads an answer. It reports whether the first packet had to be sent
// again.
func ask(ns *netns.NS, at netip.AddrPort) (again bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := ns.Dial(ctx, "tcp", at.String())
	if err != nil {
		return false, err
	}
	defer func(c net.Conn) { _ = c.Close() }(conn) // it was read
	if again, err = repeated(conn); err != nil {
		return false, err
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return again, err
	}
	if _, err := conn.Write([]byte("GET /healthz HTTP/1.0\r\n\r\n")); err != nil {
		return again, err
	}
	b := make([]byte, 12)
	_, err = conn.Read(b)
	if err == nil && !strings.HasPrefix(string(b), "HTTP/1.") {
		err = fmt.Errorf("answered %q", b)
	}
	return again, err
}

// repeated reports whether the kernel has sent a packet of a new connection again.
func repeated(conn net.Conn) (bool, error) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) {
		info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err := errors.Join(err, failed); err != nil {
		return false, err
	}
	return info.Total_retrans > 0, nil
}
