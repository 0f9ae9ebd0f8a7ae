// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/lab"
)

// What kube-proxy in IPVS mode left goes on to serve until an operator removes it. With nftables no call fails on the
// way; with IPVS the agent's own virtual services come soon after that.
func TestTakingOverFromKubeProxyInIPVSMode(t *testing.T) {
	kubeProxyProgram(t)
	needIPVS(t)
	for _, backend := range []string{"nftables", "ipvs"} {
		t.Run(backend, func(t *testing.T) {
			w := newWorld(t, lab.Routed, "node1", "node2")
			w.populateForServices(lab.Routed)
			w.rangesOfPods()
			proxy := w.kubeProxy("node1", "ipvs")
			calls := w.serviceStream("default/near", anywhere().addrs)
			a := w.agent("node1", serving("--takeover", "--service-proxy-backend="+backend)...)
			a.await("a refusal", func() bool {
				_, text := a.Get("/readyz")
				return strings.Contains(text, "other service proxy: kube-proxy runs")
			})
			proxy.Kill()
			a.ready()
			a.await("that its interface stays", func() bool { return a.hasProblem("kube-ipvs0") })
			if taken := a.hasProblem("another program has a virtual service"); taken != (backend == "ipvs") {
				t.Errorf("another program's virtual services are a problem: %v; problems: %v", taken, a.status().Problems)
			}
			calls.goOn(50)
			if backend == "ipvs" {
				calls.stop() // some may fail until ours are there
			}
			w.flushIPVS("node1")
			if backend == "ipvs" {
				a.await("virtual services of its own", func() bool { return !a.hasProblem("another program has a virtual service") })
				if w.virtualServices("node1") == 0 {
					t.Error("there are none")
				}
				calls = w.serviceStream("default/near", anywhere().addrs)
			}
			w.deleteLink("node1", "kube-ipvs0")
			a.await("nothing left of kube-proxy", func() bool { return len(ofTheProxy(a.status())) == 0 })
			calls.goOn(50)
			calls.stop()
			if code, text := a.Get("/readyz"); code != http.StatusOK {
				t.Errorf("at the end /readyz says %s", text)
			}
		})
	}
}

// hasProblem reports whether a problem of the node has these words.
func (a *agent) hasProblem(words string) bool {
	for _, p := range a.status().Problems {
		if strings.Contains(p.Subject+" "+p.Text, words) {
			return true
		}
	}
	return false
}

// flushIPVS removes all virtual services of a node, as ipvsadm -C does.
func (w *world) flushIPVS(node string) {
	w.t.Helper()
	err := w.bed.Node(node).NS.Do(func() error {
		c, err := ipvs.Open()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }() // it was read and written by then
		list, err := c.Services()
		for _, s := range list {
			if err == nil {
				err = c.Do(ipvs.Op{Kind: ipvs.DeleteService, Service: s})
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// deleteLink removes an interface of a node.
func (w *world) deleteLink(node, name string) {
	w.t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(w.bed.Node(node).NS.FD()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil {
		w.t.Fatalf("removing %s of %s: %v", name, node, err)
	}
}
