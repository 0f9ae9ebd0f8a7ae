// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/generate"
)

func pod(name, addr string, labels map[string]string) *cluster.Pod {
	ns, short, _ := strings.Cut(name, "/")
	return &cluster.Pod{Key: cluster.Key{Namespace: ns, Name: short}, Node: "node1",
		IPs: []netip.Addr{netip.MustParseAddr(addr)}, Labels: cluster.NewLabels(labels)}
}

// shop has two rollouts of web, a canary whose labels are those of web and one more, and a client.
func shop() generate.Input {
	web := func(hash, version string) map[string]string {
		return map[string]string{"app": "web", "pod-template-hash": hash, "app.kubernetes.io/version": version}
	}
	snap := &cluster.Snapshot{Pods: []*cluster.Pod{
		pod("shop/web-1-aaaaa", "10.244.1.10", web("1", "1")), pod("shop/web-2-bbbbb", "10.244.1.11", web("2", "2")),
		pod("shop/web-canary", "10.244.1.12", map[string]string{"app": "web", "track": "canary"}),
		pod("shop/client", "10.244.1.13", map[string]string{"app": "client"}),
		pod("shop/alike", "10.244.1.14", map[string]string{"app": "client"}),
		pod("shop/bare", "10.244.1.15", nil),
		pod("batch/client", "10.244.1.17", map[string]string{"app": "client", "tier": "x"}), // of another namespace
		pod("batch/job-ttttt", "10.244.1.16", map[string]string{"app": "job", "job-name": "job-7"}),
	}}
	in := generate.Input{Snap: snap, Nodes: []*cluster.Node{{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.250.0.0/24")}}},
		Services: map[netip.Addr]bool{netip.MustParseAddr("10.96.0.1"): true},
		Workload: map[cluster.Key]string{}, From: start, To: start.Add(time.Hour),
		Chosen: func(cluster.Key) bool { return true }}
	for _, name := range []string{"web-1-aaaaa", "web-2-bbbbb"} {
		in.Workload[cluster.Key{Namespace: "shop", Name: name}] = "web"
	}
	in.Workload[cluster.Key{Namespace: "batch", Name: "job-ttttt"}] = "job"
	return in
}

// end is a pod (shop/web), a node (node1!192.0.2.1) or an address.
func end(text string) denied.End {
	if ns, name, ok := strings.Cut(text, "/"); ok {
		return denied.End{Address: netip.MustParseAddr("10.244.1.99"), Pod: &cluster.Key{Namespace: ns, Name: name}}
	}
	if node, addr, ok := strings.Cut(text, "!"); ok {
		return denied.End{Address: netip.MustParseAddr(addr), Node: node}
	}
	return denied.End{Address: netip.MustParseAddr(text)}
}

func would(direction, from, to, protocol string, port uint16) denied.Record {
	return denied.Record{Verdict: denied.WouldDeny, Direction: direction, Protocol: protocol, Port: port, Count: 3,
		First: start, Last: start.Add(time.Minute), Source: end(from), Destination: end(to),
		Policies: []cluster.Key{{Namespace: "shop", Name: "all"}}}
}

// What the ends of a flow become.
func TestPoliciesOfAShop(t *testing.T) {
	in := shop()
	in.Snap.Policies = []*cluster.Policy{{Key: cluster.Key{Namespace: "shop", Name: "seen-web"}}, {
		Key: cluster.Key{Namespace: "shop", Name: "all"}, Audit: true, Ingress: []cluster.Rule{{}}}}
	later := would("ingress", "batch/job-ttttt", "shop/web-2-bbbbb", "tcp", 8080)
	later.Last = start.Add(time.Hour)
	in.Records = []denied.Record{
		would("ingress", "shop/client", "shop/web-1-aaaaa", "tcp", 8080), later,
		would("ingress", "203.0.113.9", "shop/web-1-aaaaa", "tcp", 8443),
		would("ingress", "203.0.113.7", "shop/web-1-aaaaa", "tcp", 8443),
		would("egress", "shop/web-7c9f5d8b6-ccccc", "2001:db8::7", "udp", 53),
	}
	r := generate.Policies(in)
	if len(r.Policies) != 1 || len(r.LeftOut) != 0 {
		t.Fatalf("%d policies, left out %v", len(r.Policies), r.LeftOut)
	}
	text, err := yaml.Marshal(r.Policies[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(policyOfAShop, string(text)); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	want := []string{"alike, client of shop have the same labels: what was seen of one is allowed to all",
		"policy shop/all, in audit mode, allows flows too: they have no records; enforce it before these policies, or " +
			"those flows are denied"}
	if diff := cmp.Diff(want, r.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

const policyOfAShop = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  annotations:
    podwall.io/seen-egress-0: 3 packets, first 2026-11-30T10:00:00Z, last 2026-11-30T10:01:00Z
    podwall.io/seen-ingress-0: 3 packets, first 2026-11-30T10:00:00Z, last 2026-11-30T11:00:00Z
    podwall.io/seen-ingress-1: 3 packets, first 2026-11-30T10:00:00Z, last 2026-11-30T10:01:00Z
    podwall.io/seen-ingress-2: 6 packets, first 2026-11-30T10:00:00Z, last 2026-11-30T10:01:00Z
    podwall.io/seen-window: 2026-11-30T10:00:00Z/2026-11-30T11:00:00Z
  name: seen-web-2
  namespace: shop
spec:
  egress:
  - ports:
    - port: 53
      protocol: UDP
    to:
    - ipBlock:
        cidr: 2001:db8::7/128
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: batch
      podSelector:
        matchLabels:
          app: job
    ports:
    - port: 8080
      protocol: TCP
  - from:
    - podSelector:
        matchLabels:
          app: client
    ports:
    - port: 8080
      protocol: TCP
  - from:
    - ipBlock:
        cidr: 203.0.113.7/32
    - ipBlock:
        cidr: 203.0.113.9/32
    ports:
    - port: 8443
      protocol: TCP
  podSelector:
    matchExpressions:
    - key: track
      operator: DoesNotExist
    matchLabels:
      app: web
  policyTypes:
  - Ingress
  - Egress
`

// What no rule is written for, and why.
func TestWhatIsLeftOut(t *testing.T) {
	const web = "shop/web-1-aaaaa"
	for name, c := range map[string]struct {
		record denied.Record
		why    string
	}{
		"a node":                 {would("ingress", "node1!192.0.2.1", web, "tcp", 1), "is node node1"},
		"a node without a name":  {would("ingress", "192.0.2.1", web, "tcp", 1), "the address of node node1"},
		"a bridge of the node":   {would("ingress", "10.250.0.1", web, "tcp", 1), "of the pods of node node1"},
		"a tunnel":               {would("ingress", "10.244.1.1", web, "tcp", 1), "of the pods' network"},
		"a pod that was unknown": {would("ingress", "10.244.1.13", web, "tcp", 1), "of a pod that was not known"},
		"a Service":              {would("egress", web, "10.96.0.1", "tcp", 1), "the address of a Service"},
		"link-local":             {would("egress", web, "169.254.20.10", "udp", 53), "no address of a host"},
		"a group":                {would("egress", web, "239.1.1.1", "udp", 53), "no address of a host"},
		"no port can be named":   {would("ingress", "shop/client", web, "1", 0), "no rule can name its protocol"},
		"a fragment":             {would("ingress", "shop/client", web, "udp", 0), "a later fragment"},
		"a subject without name": {would("ingress", "shop/client", "shop/bare", "tcp", 1), "has no labels"},
		"a peer without labels":  {would("ingress", "shop/bare", web, "tcp", 1), "pod shop/bare has no labels"},
		"a pod that is gone":     {would("ingress", "shop/gone", web, "tcp", 1), "pod shop/gone is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			in := shop()
			in.Records = []denied.Record{c.record}
			r := generate.Policies(in)
			if len(r.Policies) != 0 || len(r.LeftOut) != 1 || !strings.Contains(r.LeftOut[0].String(), c.why) {
				t.Errorf("%d policies, left out %v", len(r.Policies), r.LeftOut)
			}
		})
	}
}

// Flows that were denied become no rules: neither records of denied flows, nor those that one direction
// would have denied and the other one did.
func TestDeniedFlowsBecomeNoRules(t *testing.T) {
	in := shop()
	refused := would("ingress", "shop/client", "shop/web-1-aaaaa", "tcp", 8080)
	refused.Verdict = denied.Denied
	in.Records = []denied.Record{would("egress", "shop/client", "shop/web-1-aaaaa", "tcp", 8080), refused}
	r := generate.Policies(in)
	if len(r.Policies) != 0 || len(r.LeftOut) != 1 || !strings.Contains(r.LeftOut[0].Why, "denied it") {
		t.Errorf("%d policies, left out %v", len(r.Policies), r.LeftOut)
	}
	in.Chosen = func(cluster.Key) bool { return false }
	if r := generate.Policies(in); len(r.LeftOut) != 0 {
		t.Errorf("of pods that were not chosen: %v", r.LeftOut)
	}
}

// A pod that is gone is one of its workload, unless that has pods of two kinds.
func TestAPodThatIsGone(t *testing.T) {
	in := shop()
	in.Workload[cluster.Key{Namespace: "shop", Name: "web-canary"}] = "web"
	in.Records = []denied.Record{would("ingress", "shop/client", "shop/web-7c9f5d8b6-ccccc", "tcp", 8080)}
	if r := generate.Policies(in); len(r.Policies) != 0 || len(r.LeftOut) != 1 {
		t.Errorf("%d policies, left out %v", len(r.Policies), r.LeftOut)
	}
}
