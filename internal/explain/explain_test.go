// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/oracle"
	"github.com/podwall/podwall/internal/source/manifest"
)

// question is one flow for both witnesses.
type question struct {
	flow   explain.Flow
	oracle oracle.Flow
}

// questions asks about every pair of pods, nodes and outside addresses.
func questions(t *rapid.T, snap *cluster.Snapshot) (list []question) {
	type end struct {
		here  explain.End
		there oracle.Endpoint
	}
	var ends []end
	claims := map[netip.Addr]int{}
	for _, p := range snap.Pods {
		if p.Networked() {
			for _, a := range p.IPs {
				claims[a]++
			}
		}
	}
	for _, p := range snap.Pods {
		if p.Networked() && p.Node != "" && !slices.ContainsFunc(p.IPs, func(a netip.Addr) bool { return claims[a] > 1 }) {
			for _, a := range p.IPs {
				ends = append(ends, end{explain.End{Pod: p.Key, Addr: a}, oracle.Endpoint{Pod: p.Key, Addr: a}})
			}
		}
	}
	for _, n := range gen.Nodes() {
		a := gen.NodeAddr(n, true)
		ends = append(ends, end{explain.End{Node: n, Addr: a}, oracle.Node(n, a)})
	}
	for _, text := range []string{"198.51.100.7", "2001:db8::7"} {
		a := netip.MustParseAddr(text)
		ends = append(ends, end{explain.End{Addr: a}, oracle.Addr(a)})
	}
	port := rapid.SampledFrom([]uint16{53, 79, 80, 81, 443, 8080}).Draw(t, "port")
	protocol := rapid.SampledFrom(cluster.Protocols[:]).Draw(t, "protocol")
	for _, src := range ends {
		for _, dst := range ends {
			if src.here.Addr.Is4() != dst.here.Addr.Is4() {
				continue
			}
			list = append(list, question{explain.Flow{Src: src.here, Dst: dst.here, Protocol: inet.Protocol(protocol), Port: port},
				oracle.Flow{Src: src.there, Dst: dst.there, Protocol: protocol, Port: port}})
		}
	}
	return list
}

// Explanations say what the oracle says: verdict, isolating policies, a rule that
// allows, and for a denied flow a nearest rule that the oracle calls as near.
func TestExplanationsAgreeWithTheOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		c := explain.New(snap)
		for _, q := range questions(t, snap) {
			want := oracle.Judge(snap, q.oracle)
			got, err := c.Explain(q.flow)
			if err != nil {
				t.Fatalf("%s to %s: %v", q.flow.Src, q.flow.Dst, err)
			}
			if got.Allowed != want.Allowed {
				t.Fatalf("%s to %s %s:%d: allowed %t, the oracle says %s", q.flow.Src, q.flow.Dst, q.flow.Protocol,
					q.flow.Port, got.Allowed, want)
			}
			for d, side := range map[string]struct {
				got  explain.Side
				want oracle.Reason
			}{"egress": {got.Egress, want.Egress}, "ingress": {got.Ingress, want.Ingress}} {
				sideAgrees(t, q, d, side.got, side.want)
			}
		}
	})
}

func sideAgrees(t *rapid.T, q question, direction string, got explain.Side, want oracle.Reason) {
	fail := func(what string) {
		t.Fatalf("%s of %s to %s %s:%d: %s: got %+v, the oracle says %s", direction, q.flow.Src,
			q.flow.Dst, q.flow.Protocol, q.flow.Port, what, got, want)
	}
	switch {
	case got.Allowed() != want.Allowed():
		fail("verdict")
	case !slices.Equal(got.Isolating, want.Isolating) && want.Cause != oracle.Self:
		fail("isolating policies")
	case got.Cause == explain.AllowedByRule && !slices.ContainsFunc(got.Rules, func(r explain.RuleRef) bool {
		return r.Policy == want.Match.Policy && r.Path == fmt.Sprintf("spec.%s[%d]", want.Match.Direction, want.Match.Rule)
	}):
		fail("the rule that allows is not named")
	case slices.ContainsFunc(got.Rules, func(r explain.RuleRef) bool { return !slices.Contains(got.Isolating, r.Policy) }):
		fail("a rule of a policy that does not select the pod")
	case !got.Allowed() && (got.Nearest == nil) != (want.Nearest == nil):
		fail("nearest rule")
	case !got.Allowed() && got.Change == "":
		fail("no change is proposed")
	case got.Nearest != nil && !sameHalves(got.Nearest, want.Nearest):
		fail("halves of the nearest rule")
	case got.Nearest != nil && len(got.Nearest.Why) == 0:
		fail("no reason is given")
	}
}

func sameHalves(got *explain.Miss, want *oracle.Miss) bool {
	return got.PeerMatches == want.PeerMatches && got.PortMatches == want.PortMatches
}

// Where pods share an address the verdict is that of the programs: closed, as soon as
// one of them is isolated.
func TestAnAddressOfTwoPodsIsContested(t *testing.T) {
	twin := strings.NewReplacer("name: db", "name: twin", "app: db", "app: twin").Replace(podDB)
	c := world(t, twin, policy("p", `{podSelector: {matchLabels: {app: twin}}, ingress: [{from: [{podSelector: {}}]}]}`))
	for _, dst := range []string{"db", "twin"} {
		e, err := c.Explain(explain.Flow{Src: pod("shop", "web"), Dst: pod("shop", dst), Protocol: inet.TCP, Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		if e.Allowed || e.Ingress.Cause != explain.Contested || len(e.Ingress.Claimants) != 2 {
			t.Errorf("%s: %s", dst, e)
		}
	}
}

// Each rule that allows a flow is named: to delete one of them closes nothing.
func TestAllRulesThatAllowAreNamed(t *testing.T) {
	c := world(t, policy("p", `{podSelector: {}, ingress: [{}]}`), policy("q", `{podSelector: {}, ingress: [{}]}`),
		policy("r", `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`), policy("s",
			`{podSelector: {}, ingress: [{ports: [{port: 81}]}]}`))
	e, err := c.Explain(explain.Flow{Src: pod("other", "web"), Dst: pod("shop", "db"), Protocol: inet.TCP, Port: 80})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range e.Ingress.Rules {
		got = append(got, r.Policy.Name)
	}
	if !slices.Equal(got, []string{"p", "q", "r"}) {
		t.Errorf("rules of %v, want p, q and r:\n%s", got, e)
	}
}

const podDB = `apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: one, containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}
`

// world is a cluster made by hand: shop/web (10.0.0.1), shop/db (10.0.0.2), and
// other/web (10.0.0.3) on another node.
func world(t *testing.T, policies ...string) *explain.Cluster {
	t.Helper()
	return explain.New(read(t, append([]string{`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {team: b, kubernetes.io/metadata.name: other}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: one, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
---
` + podDB + `---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: other, labels: {app: web}}
spec: {nodeName: two, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.3}]}
`}, policies...)...))
}

func policy(name, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: shop}\nspec: " + spec + "\n"
}

func TestADenyNamesFieldAndChange(t *testing.T) {
	tests := []struct {
		name, spec string
		src, dst   explain.End
		port       uint16
		why        string // part of the reasons
		change     string // part of the change
	}{
		{"a misspelt label", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: webb}}}]}]}`,
			pod("shop", "web"), pod("shop", "db"), 5432,
			"spec.ingress[0].from[0].podSelector: needs app=webb, has app=web", `set app of spec.ingress[0].from[0].podSelector to "web"`},
		{"another port",
			`{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: sql}]}]}`,
			pod("shop", "web"), pod("shop", "db"), 443,
			"spec.ingress[0].ports: tcp:80, tcp:sql (5432 on shop/db), the flow has tcp:443",
			"add {protocol: TCP, port: 443} to spec.ingress[0].ports"},
		{"another namespace", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}`,
			pod("other", "web"), pod("shop", "db"), 5432,
			"without namespaceSelector it means namespace shop, the peer is in other", "kubernetes.io/metadata.name: other"},
		{"labels of the namespace", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}`,
			pod("other", "web"), pod("shop", "db"), 5432,
			"spec.ingress[0].from[0].namespaceSelector: needs team=a, has team=b",
			`set team of spec.ingress[0].from[0].namespaceSelector to "b"`},
		{"a namespace that others need",
			`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]}`,
			pod("other", "web"), pod("shop", "db"), 5432,
			"needs kubernetes.io/metadata.name=shop, has kubernetes.io/metadata.name=other", "metadata.name: other"},
		{"no rules", `{podSelector: {}}`, pod("shop", "web"), pod("shop", "db"), 80, "", "add a rule to spec.ingress of shop/p"},
		{"an except", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.8/29]}}]}]}`,
			pod("shop", "web"), explain.End{Addr: netip.MustParseAddr("192.0.2.9")}, 443,
			"spec.egress[0].to[0].ipBlock.except[0]: 192.0.2.8/29 contains 192.0.2.9",
			"narrow spec.egress[0].to[0].ipBlock.except[0] so that it does not contain 192.0.2.9"},
		{"an undeclared name", `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: sql}]}]}`,
			pod("shop", "db"), pod("shop", "web"), 5432,
			"spec.egress[0].ports: tcp:sql (not declared by shop/web), the flow has tcp:5432", "port: 5432"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := world(t, policy("p", tt.spec)).Explain(explain.Flow{Src: tt.src, Dst: tt.dst, Protocol: inet.TCP, Port: tt.port})
			if err != nil {
				t.Fatal(err)
			}
			side := e.Ingress
			if side.Allowed() {
				side = e.Egress
			}
			if e.Allowed || side.Allowed() {
				t.Fatalf("allowed: %+v", e)
			}
			why := ""
			if side.Nearest != nil {
				why = strings.Join(side.Nearest.Why, "\n")
			}
			if !strings.Contains(why, tt.why) || !strings.Contains(side.Change, tt.change) {
				t.Errorf("why:\n%s\nchange: %s\nwant %q and %q", why, side.Change, tt.why, tt.change)
			}
		})
	}
}

func TestAnExplanationIsTextForPeople(t *testing.T) {
	c := world(t, policy("p", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: webb}}}]}]}`))
	e, err := c.Explain(explain.Flow{Src: pod("shop", "web"), Dst: pod("shop", "db"), Protocol: inet.TCP, Port: 5432})
	if err != nil {
		t.Fatal(err)
	}
	want := `shop/web to shop/db tcp:5432: denied
  egress of shop/web: allowed, not isolated
  ingress of shop/db: denied
    isolated by shop/p
    nearest rule: shop/p spec.ingress[0]
      spec.ingress[0].from[0].podSelector: needs app=webb, has app=web
    to allow it: set app of spec.ingress[0].from[0].podSelector to "web" (shop/p)
`
	if diff := cmp.Diff(want, e.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAnEndThatDoesNotExistIsNamed(t *testing.T) {
	c := world(t)
	for _, tt := range []struct {
		end  explain.End
		want error
	}{{pod("shop", "webb"), explain.ErrUnknownPod}, {explain.End{}, explain.ErrNoAddress},
		{explain.End{Addr: netip.MustParseAddr("fd00::1")}, explain.ErrNoAddress},
		{explain.End{Pod: cluster.Key{Namespace: "shop", Name: "db"}, Addr: netip.MustParseAddr("10.0.0.9")}, explain.ErrNoAddress}} {
		_, err := c.Explain(explain.Flow{Src: pod("shop", "web"), Dst: tt.end, Protocol: inet.TCP, Port: 80})
		if !errors.Is(err, tt.want) {
			t.Errorf("%v: %v, want %v", tt.end, err, tt.want)
		}
	}
}

// An item that is proposed for a peer means this peer.
func TestAProposedItemMeansThePeer(t *testing.T) {
	const spec = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: x, tier: z}}}%s]}]}`
	flow := explain.Flow{Src: pod("other", "web"), Dst: pod("shop", "db"), Protocol: inet.TCP, Port: 80}
	e, err := world(t, policy("p", fmt.Sprintf(spec, ""))).Explain(flow)
	if err != nil {
		t.Fatal(err)
	}
	item, _, ok := strings.Cut(strings.TrimPrefix(e.Ingress.Change, "add "), " next to ")
	if e.Allowed || !ok {
		t.Fatal(e)
	}
	if e, err = world(t, policy("p", fmt.Sprintf(spec, ", "+item))).Explain(flow); err != nil || !e.Allowed {
		t.Errorf("with %s: %v %v", item, err, e)
	}
}

// A policy that was meant to select the pod and does not is named with the reason:
// the typo of a subject opens.
func TestAnAllowNamesPoliciesThatDoNotSelect(t *testing.T) {
	c := world(t, policy("p", `{podSelector: {matchLabels: {app: dbb}}}`),
		policy("q", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}`))
	e, err := c.Explain(explain.Flow{Src: pod("shop", "web"), Dst: pod("shop", "db"), Protocol: inet.TCP, Port: 80})
	if err != nil {
		t.Fatal(err)
	}
	if !e.Allowed || e.Ingress.Cause != explain.AllowedByRule || len(e.Ingress.Rules) != 1 || e.Ingress.Rules[0].Path != "spec.ingress[0]" {
		t.Errorf("got %+v", e.Ingress)
	}
	want := []explain.Other{{Policy: cluster.Key{Namespace: "shop", Name: "p"}, Why: "spec.podSelector: needs app=dbb, has app=db"}}
	if !slices.Equal(e.Ingress.Others, want) {
		t.Errorf("others %+v, want %+v", e.Ingress.Others, want)
	}
}

func pod(namespace, name string) explain.End {
	return explain.End{Pod: cluster.Key{Namespace: namespace, Name: name}}
}

// read returns the snapshot of some manifests.
func read(t *testing.T, documents ...string) *cluster.Snapshot {
	t.Helper()
	r, err := manifest.Parse("cluster.yaml", []byte(strings.Join(documents, "---\n")))
	if err != nil || !r.AsWritten() {
		t.Fatalf("%v %v", err, r.Diagnostics)
	}
	return &cluster.Snapshot{Namespaces: r.Namespaces, Pods: r.Pods, Policies: r.Policies}
}
