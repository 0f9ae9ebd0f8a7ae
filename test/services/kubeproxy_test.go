// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/process"
	"github.com/podwall/podwall/internal/lab/scenarios"
	"github.com/podwall/podwall/internal/lab/testkit/fakeapi"
	"github.com/podwall/podwall/internal/proxy/oracle"
)

// kubeProxy is the real one, with a server that has the objects of a scenario.
type kubeProxy struct {
	node    *node
	server  *fakeapi.Server
	process *process.Process
	synced  int32 // the last number of the marker
}

const kubeProxyFile = `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clientConnection: {kubeconfig: %s, acceptContentTypes: application/json, contentType: application/json}
detectLocalMode: ClusterCIDR
clusterCIDR: %s
nftables: {minSyncPeriod: 10ms, masqueradeAll: %t}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
`

// programs that kube-proxy needs, or a reason to skip.
func kubeProxyProgram(t *testing.T) string {
	t.Helper()
	name := os.Getenv("PODWALL_KUBE_PROXY")
	if name == "" {
		name = "../../bin/kube-proxy"
	}
	name, err := filepath.Abs(name)
	check(t, err)
	_, missing := exec.LookPath("nft")
	if _, err := os.Stat(name); errors.Join(err, missing) != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("kube-proxy needs `make prepare kubeapi`: ", errors.Join(err, missing))
		}
		t.Skip("kube-proxy needs `make prepare kubeapi`: ", errors.Join(err, missing))
	}
	return name
}

// startKubeProxy starts one on a node; pods are the ranges of all pods.
func startKubeProxy(t *testing.T, w *scenarios.World, at *scenarios.Node, pods string, masqueradeAll bool) *kubeProxy {
	t.Helper()
	program := kubeProxyProgram(t)
	p := &kubeProxy{node: newNode(t), server: fakeapi.New()}
	p.node.become(t, at.IPs)
	p.set(t, w, at, nil)
	listener, err := p.node.ns.Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	web := &http.Server{Handler: p.server, ReadHeaderTimeout: time.Minute}
	go func() { _ = web.Serve(listener) }()
	t.Cleanup(func() { _ = web.Close() })
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	check(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, "apiVersion: v1\nkind: Config\ncurrent-context: x\n"+
		"clusters: [{name: x, cluster: {server: \"http://%s\"}}]\ncontexts: [{name: x, context: {cluster: x}}]\n",
		listener.Addr()), 0o600))
	file := filepath.Join(dir, "kube-proxy.yaml")
	check(t, os.WriteFile(file, fmt.Appendf(nil, kubeProxyFile, at.Name, kubeconfig, pods, masqueradeAll), 0o600))
	p.process, err = process.Start(exec.Command(program, "--config="+file), process.Options{Name: "kube-proxy",
		Log: filepath.Join(dir, "*.log"), NS: p.node.ns, Group: true})
	check(t, err)
	t.Cleanup(func() { p.process.Kill() })
	return p
}

// markerPort is the port of the marker, a Service that changes with each scenario: when its change is in
// the kernel, everything is.
const markerPort = 9

// set gives the server the objects of a scenario, with the defaults of the API, and the marker.
func (p *kubeProxy) set(t fataler, w *scenarios.World, at *scenarios.Node, objects []json.RawMessage) {
	t.Helper()
	p.synced++
	services, ends := map[string]any{}, map[string]any{}
	own := &corev1.Node{}
	own.Name, own.Labels = at.Name, map[string]string{corev1.LabelTopologyZone: at.Zone}
	for _, a := range at.IPs {
		own.Status.Addresses = append(own.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	for _, raw := range append(objects, p.marker()...) {
		var of struct {
			Kind string `json:"kind"`
		}
		check(t, json.Unmarshal(raw, &of))
		switch of.Kind {
		case "Service":
			s := &corev1.Service{}
			check(t, json.Unmarshal(raw, s))
			if defaultService(s); selected(s.Labels) {
				services[s.Namespace+"/"+s.Name] = s
			}
		case "EndpointSlice":
			s := &discoveryv1.EndpointSlice{}
			check(t, json.Unmarshal(raw, s))
			if defaultSlice(s); selected(s.Labels) {
				ends[s.Namespace+"/"+s.Name] = s
			}
		case "Node":
			n := &corev1.Node{}
			check(t, json.Unmarshal(raw, n))
			if n.Name == own.Name {
				own = n
			}
		}
	}
	ranges := &networkingv1.ServiceCIDR{}
	ranges.Name = "kubernetes"
	for _, r := range w.ServiceRanges {
		ranges.Spec.CIDRs = append(ranges.Spec.CIDRs, r.String())
	}
	check(t, p.server.Set(fakeapi.PathRanges, map[string]any{"/kubernetes": ranges}))
	check(t, p.server.Set(fakeapi.PathNodes, map[string]any{"/" + own.Name: own}))
	check(t, p.server.Set(fakeapi.PathServices, services))
	check(t, p.server.Set(fakeapi.PathSlices, ends))
}

// selected reports whether kube-proxy selects objects with the labels.
func selected(labels map[string]string) bool {
	_, other := labels["service.kubernetes.io/service-proxy-name"]
	_, headless := labels[corev1.IsHeadlessService]
	return !other && !headless
}

// marker returns the marker: its port and that of its endpoint are the number. Its names are the last ones.
func (p *kubeProxy) marker() []json.RawMessage {
	return []json.RawMessage{
		fmt.Appendf(nil, `{"kind": "Service", "metadata": {"name": "zz", "namespace": "zz"}, "spec": {"clusterIPs": `+
			`["10.96.250.1", "fd00:10:96::fa01"], "ports": [{"port": %d}]}}`, markerPort+p.synced),
		fmt.Appendf(nil, `{"kind": "EndpointSlice", "metadata": {"name": "zz4", "namespace": "zz", "labels": `+
			`{"kubernetes.io/service-name": "zz"}}, "addressType": "IPv4", "ports": [{"port": %d}], "endpoints": `+
			`[{"addresses": ["10.244.9.9"]}]}`, markerPort+p.synced),
		fmt.Appendf(nil, `{"kind": "EndpointSlice", "metadata": {"name": "zz6", "namespace": "zz", "labels": `+
			`{"kubernetes.io/service-name": "zz"}}, "addressType": "IPv6", "ports": [{"port": %d}], "endpoints": `+
			`[{"addresses": ["fd00:10:244:9::9"]}]}`, markerPort+p.synced),
	}
}

// await waits until the marker's last change is in the kernel.
func (p *kubeProxy) await(t fataler) {
	t.Helper()
	port := uint16(markerPort + p.synced)
	for _, ends := range [][3]string{{"10.244.1.200", "10.96.250.1", "10.244.9.9"},
		{"fd00:10:244:1::200", "fd00:10:96::fa01", "fd00:10:244:9::9"}} {
		want := netip.AddrPortFrom(netip.MustParseAddr(ends[2]), port)
		ask := oracle.Packet{Protocol: cluster.TCP, Src: netip.MustParseAddr(ends[0]), Dst: netip.MustParseAddr(ends[1]),
			Port: port}
		for start := time.Now(); p.node.send(t, ask).backend.To != want; time.Sleep(2 * time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatalf("kube-proxy does not follow:\n%s", p.process.Tail())
			}
		}
	}
}

// defaultService sets what the API server would.
func defaultService(s *corev1.Service) {
	spec := &s.Spec
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	for i, ip := range spec.ClusterIPs {
		if i == 0 {
			spec.ClusterIP = ip
		}
		if a, err := netip.ParseAddr(ip); err == nil {
			family := map[bool]corev1.IPFamily{true: corev1.IPv4Protocol, false: corev1.IPv6Protocol}[a.Is4()]
			spec.IPFamilies = append(spec.IPFamilies, family)
		}
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if seconds := corev1.DefaultClientIPServiceAffinitySeconds; spec.SessionAffinity == corev1.ServiceAffinityClientIP &&
		spec.SessionAffinityConfig == nil {
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	for i := range spec.Ports {
		if spec.Ports[i].Protocol == "" {
			spec.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
}

func defaultSlice(s *discoveryv1.EndpointSlice) {
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	name, protocol := "", corev1.ProtocolTCP
	for i := range s.Ports {
		if s.Ports[i].Name == nil {
			s.Ports[i].Name = &name
		}
		if s.Ports[i].Protocol == nil {
			s.Ports[i].Protocol = &protocol
		}
	}
}

// agrees reports whether kube-proxy does with a packet what the oracle says, as far as that can be seen.
// A packet that may go somewhere is sent several times: a backend that must not be met would be.
func (p *kubeProxy) agrees(t fataler, packet oracle.Packet, want oracle.Answer) (fate, bool) {
	t.Helper()
	n := p.node
	own := func(a netip.Addr) bool { return slices.Contains(n.addrs, a) || a.IsLoopback() }
	hereToo := slices.ContainsFunc(want.Backends, func(b oracle.Backend) bool { return own(b.To.Addr()) })
	met := map[netip.AddrPort]bool{}
	times := 2 // the kernel bounds the number of errors that it tells of
	if want.Verdict == oracle.Forward {
		times = 40
	}
	for range times {
		got := n.send(t, packet)
		switch {
		case got.here && (hereToo || want.Verdict == oracle.NotOurs && own(packet.Dst)):
		case got.here && packet.FromNode && want.Verdict != oracle.Forward: // its answers stay inside
		case got.here && want.Verdict == oracle.Reject && got.refused:
		case got.here && want.Verdict == oracle.Drop && !got.refused:
		case got.here, got.verdict != want.Verdict:
			return got, false
		case want.Verdict == oracle.Forward:
			same := func(b oracle.Backend) bool {
				return b.To == got.backend.To && (packet.FromNode || b.SourceKept == got.backend.SourceKept)
			}
			if !slices.ContainsFunc(want.Backends, same) {
				return got, false
			}
			met[got.backend.To] = true
		}
	}
	return fate{}, want.Verdict != oracle.Forward || want.Sticky > 0 || hereToo || len(met) == len(want.Backends)
}

// agreesInTime is agrees, asked again after a disagreement with all objects as new changes: kube-proxy hears of
// Services, slices and its Node by watches of their own, and the marker shows how far it is with the first two.
// The zone goes and comes for that: one that kube-proxy 1.35 hears of while it starts, before the line that
// registers whom to tell, it notes and tells nobody, until the zone is another one.
func (p *kubeProxy) agreesInTime(t fataler, w *scenarios.World, at *scenarios.Node, objects []json.RawMessage,
	packet oracle.Packet, want oracle.Answer) (got fate, ok bool) {
	t.Helper()
	for range 5 {
		if got, ok = p.agrees(t, packet, want); ok {
			return got, true
		}
		p.set(t, w, &scenarios.Node{Host: at.Host}, nil)
		p.set(t, w, at, objects)
		p.await(t)
		time.Sleep(time.Second)
	}
	return got, false
}

// apart are the scenarios in which kube-proxy does something else, and why; docs/design/services.md says
// more. In those with a question mark it may, by the order in which it reads its maps.
func apart() map[string]string {
	const (
		owned  = "it takes any external address"
		older  = "? of two Services with one front, that which it reads last has it"
		copies = "? of an endpoint in two slices it believes what it reads last"
		typed  = "it does not look at the type of a Service"
	)
	return map[string]string{
		"cluster-addresses/a service range that holds an address of the node drops nothing": "it drops",
		"cluster-addresses/two Services with one cluster address":                           older,
		"cluster-addresses/an endpoint in two slices is one":                                copies,
		"endpoints/a copy that is not ready gives no hint":                                  copies,
		"external/source ranges of one family close the other":                              "the other family is open",
		"external/addresses that somebody has are not taken":                                owned,
		"external/load balancers' addresses that somebody has are not taken":                owned,
		"external/two Services want one external address":                                   older,
		"external/of two Services of one age the name decides":                              older,
		"external/a status that is left from another type":                                  typed,
		"node-ports/two Services with one node port":                                        older,
		"node-ports/a node port of a type that has none":                                    typed,
		"policies/external Local from a pod of another node is from outside": "pods of all nodes are inside, " +
			"by the range of the cluster",
	}
}

// TestScenariosBesideKubeProxy asks the real kube-proxy for the scenarios whose objects the API accepts.
func TestScenariosBesideKubeProxy(t *testing.T) {
	kubeProxyProgram(t)
	w, list, err := scenarios.Read(os.DirFS("../../testdata/services"))
	check(t, err)
	known, seen, packets := apart(), map[string]bool{}, 0
	for i := range w.Nodes {
		at := &w.Nodes[i]
		for _, masqueradeAll := range []bool{false, true}[:max(1, 2-i)] { // all at the first node
			p := startKubeProxy(t, w, at, "10.244.0.0/16,fd00:10:244::/48", masqueradeAll)
			p.await(t)
			for _, s := range list {
				if s.Settings.MasqueradeAll != masqueradeAll || s.Settings.Strict || s.Settings.PodsUnknown {
					continue
				}
				name := s.File + "/" + s.Name
				for _, d := range p.differences(t, w, s, at, known[name] != "", &packets) {
					if seen[name] = true; known[name] == "" {
						t.Errorf("%s: %s", name, d)
					}
				}
			}
		}
	}
	for name, why := range known {
		if !seen[name] && !strings.HasPrefix(why, "?") {
			t.Errorf("%s: kube-proxy does the same, but %s", name, why)
		}
	}
	if t.Logf("%d packets", packets); packets < 200 {
		t.Errorf("only %d packets", packets)
	}
}

// differences plays a scenario at a node.
func (p *kubeProxy) differences(t *testing.T, w *scenarios.World, s *scenarios.Scenario, at *scenarios.Node,
	mayDiffer bool, packets *int) (list []string) {
	t.Helper()
	snap, found, err := w.Snapshot(s.Objects)
	check(t, err)
	if slices.ContainsFunc(found, func(d cluster.Diagnostic) bool { return d.Severity == cluster.Error }) {
		return nil // the API server refuses the objects
	}
	set := w.Settings(s, at)
	p.node.become(t, set.OwnAddresses)
	p.set(t, w, at, s.Objects)
	p.await(t)
	for _, q := range s.Packets {
		asked, err := w.Ask(q)
		check(t, err)
		if asked.Node.Name != at.Name {
			continue
		}
		packet := oracle.Packet{Protocol: cluster.TCP, Src: asked.Src, Dst: asked.Dst, Port: q.Port, FromNode: asked.FromNode}
		if q.Protocol != "" {
			packet.Protocol, _ = cluster.ParseProtocol(q.Protocol)
		}
		*packets++
		want := oracle.Judge(snap, set, packet)
		got, ok := p.agrees(t, packet, want)
		if !ok && !mayDiffer {
			got, ok = p.agreesInTime(t, w, at, s.Objects, packet, want)
		}
		if !ok {
			list = append(list, fmt.Sprintf("%s: from %s to %s port %d/%s: %+v, want %s", at.Name, q.From, q.To, q.Port,
				inet.Protocol(packet.Protocol), got, q.Expected()))
		}
	}
	return list
}
