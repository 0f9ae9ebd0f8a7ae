// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/kubernetes"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// world is a lab with an API server on the network between its nodes.
type world struct {
	t      *testing.T
	bed    *lab.Bed
	prober *probe.Prober
	tables map[string]*nft.Conn // by node
	server *kubeapi.Server
	api    kubernetes.Interface

	port  atomic.Uint32             // source port of the last round
	mixed bool                      // flows of one round may meet at one place, and must differ in their source ports
	flows []flow                    // what rounds ask
	now   func(flow) bool           // what holds at present
	look  func(flow, probe.Arrival) // looks closer at what arrives; may be nil
}

// Where the API server is: a host of its own beside the nodes.
const (
	serverName = "api"
	serverPort = 6443
)

func serverAddrs() []netip.Addr { return addrs("172.30.0.1", "fd00:172:30::1") }

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// newWorld makes a lab with an API server that knows its nodes.
func newWorld(t *testing.T, wiring lab.Wiring, nodes ...string) *world {
	t.Helper()
	agentProgram(t) // skips before anything is built
	w := newLab(t, wiring, nodes...)
	host, err := w.bed.AddHost(serverName, serverAddrs())
	if err != nil {
		t.Fatal(err)
	}
	w.connect(kubeapitest.StartWith(t, w.serverOptions(host)))
	for _, name := range nodes {
		w.createNode(name, w.bed.Node(name).Addrs)
	}
	return w
}

// newLab makes a lab alone.
func newLab(t *testing.T, wiring lab.Wiring, nodes ...string) *world {
	t.Helper()
	w := &world{t: t, tables: map[string]*nft.Conn{}, now: func(flow) bool { return true }}
	var err error
	if w.bed, err = lab.NewBed(lab.Config{Wiring: wiring, Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	w.atEnd(w.bed.Close)
	if w.prober, err = probe.New(); err != nil {
		t.Fatal(err)
	}
	w.atEnd(w.prober.Close)
	for _, name := range nodes {
		if w.tables[name], err = ruleset.Open(w.bed.Node(name).NS.FD()); err != nil {
			t.Fatal(err)
		}
		w.atEnd(w.tables[name].Close)
		w.watch(w.bed.Node(name))
	}
	return w
}

func (w *world) atEnd(closing func() error) {
	w.t.Cleanup(func() {
		if err := closing(); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) serverOptions(host *lab.Endpoint) kubeapi.Options {
	return kubeapi.Options{Netns: host.NS, Bind: host.Addrs[0], Port: serverPort,
		Flags: []string{"--service-cluster-ip-range=10.96.0.0/16,fd96::/112"}}
}

// stopServer takes the API server away; its objects stay.
func (w *world) stopServer() {
	w.t.Helper()
	if err := w.server.Stop(); err != nil {
		w.t.Fatal(err)
	}
}

// restartServer brings the API server back, with what it had.
func (w *world) restartServer() {
	w.t.Helper()
	for _, e := range w.bed.Endpoints() {
		if e.Name != serverName {
			continue
		}
		s, err := kubeapi.Launch(w.t.Context(), filepath.Dir(w.server.Kubeconfig), w.serverOptions(e))
		if err != nil {
			w.t.Fatal(err)
		}
		w.atEnd(s.Stop)
		w.connect(s)
	}
}

func (w *world) connect(s *kubeapi.Server) {
	w.t.Helper()
	config, err := s.RESTConfig()
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.server, w.api = s, client
}

// agent starts the node's agent with the reference setup's own arguments. Further ones
// win over them.
func (w *world) agent(node string, more ...string) *agent {
	w.t.Helper()
	return startAgent(w.t, w.bed.Node(node).NS, node, append(seedArguments(w.server.Kubeconfig), more...)...)
}

func (w *world) watch(e *lab.Endpoint) {
	w.t.Helper()
	if err := w.prober.Add(e.Probe()); err != nil {
		w.t.Fatal(err)
	}
}

// wire makes a pod in the lab only.
func (w *world) wire(name, node string, ips []netip.Addr) {
	w.t.Helper()
	e, err := w.bed.AddPod(lab.PodSpec{Key: key(name), Node: node, IPs: ips})
	if err != nil {
		w.t.Fatal(err)
	}
	w.watch(e)
}

// unwire takes a pod away from the lab only.
func (w *world) unwire(name string) {
	w.t.Helper()
	w.prober.Remove(name) // its sockets would keep the namespace alive
	if err := w.bed.RemovePod(key(name)); err != nil {
		w.t.Fatal(err)
	}
}

// pod makes a pod in the lab and then in the API, as a node does. Labels are
// given as key=value.
func (w *world) pod(name, node string, ips []netip.Addr, labels ...string) {
	w.t.Helper()
	w.wire(name, node, ips)
	w.createPod(name, node, ips, labels...)
}

func (w *world) host(name string, ips ...string) {
	w.t.Helper()
	e, err := w.bed.AddHost(name, addrs(ips...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.watch(e)
}

// table returns podwall's table on a node as text, "" if there is none.
func (w *world) table(node string) string {
	w.t.Helper()
	t, err := w.tables[node].Read()
	if err != nil {
		w.t.Fatal(err)
	}
	if t == nil {
		return ""
	}
	return t.String()
}

func (w *world) generation(node string) uint32 {
	w.t.Helper()
	g, err := w.tables[node].Generation()
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func key(name string) cluster.Key {
	namespace, short, _ := strings.Cut(name, "/")
	return cluster.Key{Namespace: namespace, Name: short}
}
