// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/lint"
	"github.com/podwall/podwall/internal/source/manifest"
)

// village has pods of one namespace that declare ports, and one that declares none.
const village = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: shop, labels: {app: web, canary: "yes"}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: quiet, namespace: shop, labels: {app: quiet}}}
---
apiVersion: v1
kind: Pod
metadata: {name: dns, namespace: kube-system, labels: {app: dns}}
spec: {containers: [{name: c, ports: [{name: dns, containerPort: 5353, protocol: UDP},
  {name: metrics, containerPort: 9153}]}]}
---
`

func villagePorts(loud bool) map[cluster.Key][]cluster.NamedPort {
	web := []cluster.NamedPort{{Protocol: cluster.TCP, Port: 8080}, {Name: "x", Protocol: cluster.TCP, Port: 9090}}
	var quiet []cluster.NamedPort
	if loud {
		quiet = web
	}
	return map[cluster.Key][]cluster.NamedPort{
		{Namespace: "shop", Name: "web-1"}: web,
		{Namespace: "shop", Name: "web-2"}: web,
		{Namespace: "shop", Name: "quiet"}: quiet,
		{Namespace: "kube-system", Name: "dns"}: {{Name: "dns", Protocol: cluster.UDP, Port: 5353},
			{Protocol: cluster.TCP, Port: 9153}},
	}
}

// asked is a policy, or several, and what All finds in addition to Check.
type asked struct {
	loud     bool // all pods declare ports
	policies []string
	says     []string // one for each finding: the kind, then parts
}

// ingress and egress are policies of one direction for pods that a selector in YAML selects.
func ingress(subject, rules string) string {
	return `{podSelector: ` + subject + `, ingress: [` + rules + `]}`
}

func egress(subject, rules string) string {
	return `{podSelector: ` + subject + `, policyTypes: [Egress], egress: [` + rules + `]}`
}

const (
	all  = `{}`
	web  = `{matchLabels: {app: web}}`
	both = `[{port: 53, protocol: UDP}, {port: 53}]`
)

func numbers() map[string]asked {
	return map[string]asked{
		"a declared number": {policies: []string{ingress(web, `{ports: [{port: 8080}]}`)}},
		"the port of the Service": {policies: []string{ingress(web, `{ports: [{port: 80}, {port: 8080}]}`)},
			says: []string{"undeclared-number|spec.ingress[0].ports: no pod that the policy selects declares tcp:80|" +
				"they declare 8080, 9090"}},
		"another protocol": {policies: []string{ingress(web, `{ports: [{port: 8080, protocol: UDP}]}`)},
			says: []string{"undeclared-number|declares udp:8080|they declare no port of UDP"}},
		"a range with a declared number": {policies: []string{ingress(web, `{ports: [{port: 8000, endPort: 8999}]}`)}},
		"a range without": {policies: []string{ingress(web, `{ports: [{port: 1, endPort: 99}]}`)},
			says: []string{"undeclared-number|tcp:1-99"}},
		"all ports of a protocol":  {policies: []string{ingress(web, `{ports: [{protocol: SCTP}]}`)}},
		"one pod declares nothing": {policies: []string{ingress(all, `{ports: [{port: 80}]}`)}},
		"a number of peers": {policies: []string{egress(all, `{to: [{namespaceSelector: {}, podSelector:
			{matchLabels: {app: dns}}}], ports: `+both+`}`)},
			says: []string{"undeclared-number|spec.egress[0].ports: no pod that the rule leads to declares udp:53|" +
				"they declare 5353", "undeclared-number|declares tcp:53|9153"}},
		"a number of addresses": {loud: true, policies: []string{egress(all, `{to: [{ipBlock: {cidr: 0.0.0.0/0}},
			{podSelector: `+web+`}], ports: `+both+`}`)}},
		"a number of all": {loud: true, policies: []string{egress(all, `{ports: `+both+`}`)}},
	}
}

func excepts() map[string]asked {
	const refilled = "refilled-except|ipBlock "
	return map[string]asked{
		"excepts that cover the block": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 10.0.0.0/8,
			except: [10.0.0.0/9, 10.128.0.0/10, 10.192.0.0/10]}}]}`)}, says: []string{"empty-block|spec.ingress[0].from: " +
			"the except ranges of ipBlock 10.0.0.0/8 together cover all of it"}},
		"excepts that leave an address": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 10.0.0.0/30,
			except: [10.0.0.0/31, 10.0.0.2/32]}}]}`)}},
		"an except that covers the block is convert's": {policies: []string{ingress(all, `{from: [{ipBlock:
			{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.0.0.0/9}}]}`)}},
		"an except that is allowed again": {policies: []string{egress(all, `{to: [{ipBlock: {cidr: 0.0.0.0/0,
			except: [10.0.0.0/8, 192.168.0.0/16]}}, {ipBlock: {cidr: 10.0.0.0/7}}]}`)},
			says: []string{refilled + "10.0.0.0/7 allows 10.0.0.0/8 again, which ipBlock 0.0.0.0/0 leaves out|" +
				"spec.egress[0].to"}},
		"a part of it": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 10.9.0.0/16}},
			{ipBlock: {cidr: "fd00::/8"}}, {ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}`)},
			says: []string{refilled + "10.9.0.0/16 allows a part of 10.0.0.0/8 again"}},
		"a part of it by a hole": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 0.0.0.0/0,
			except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]}`)},
			says: []string{refilled + "10.0.0.0/8 allows a part of 10.0.0.0/8 again"}},
		"the other block has the same hole": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 0.0.0.0/0,
			except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.0.0.0/7, except: [10.0.0.0/9, 10.128.0.0/9]}}]}`)}},
		"pods inside a hole are allowed by label": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 0.0.0.0/0,
			except: [10.0.0.0/8]}}, {podSelector: {}}]}`)}},
		"an except outside is convert's": {policies: []string{ingress(all, `{from: [{ipBlock: {cidr: 10.0.0.0/8,
			except: [11.1.0.0/16]}}, {ipBlock: {cidr: 11.0.0.0/8}}]}`)}},
	}
}

func dns() map[string]asked {
	const https = `{ports: [{port: 443}]}`
	return map[string]asked{
		"all ports to somebody": {policies: []string{egress(all, `{to: [{podSelector: `+web+`}]}`)}},
		"no DNS": {policies: []string{egress(all, https)}, says: []string{"no-dns|spec.egress: no policy allows " +
			"udp:53 and tcp:53 for quiet, web-1, web-2: names of Services are not found"}},
		"only UDP": {policies: []string{egress(all, `{ports: [{port: 443}, {port: 53, protocol: UDP}]}`)},
			says: []string{"no-dns|allows tcp:53 for quiet, web-1, web-2: long answers"}},
		"both":                   {policies: []string{egress(all, `{ports: `+both+`}`)}},
		"5353, behind a Service": {policies: []string{egress(all, `{ports: [{port: 5353, protocol: UDP}, {port: 5353}]}`)}},
		"the whole protocols":    {policies: []string{egress(all, `{ports: [{}, {protocol: UDP}]}`)}},
		"a named port": {policies: []string{egress(all,
			`{ports: [{port: dns, protocol: UDP}, {port: 1, endPort: 99}]}`)}},
		"a name of another port": {policies: []string{egress(all, `{ports: [{port: metrics}, {port: 53, protocol: UDP}]}`)},
			says: []string{"no-dns|tcp:53 for"}},
		"no connection at all":    {policies: []string{egress(all, ``)}},
		"no isolation for egress": {policies: []string{ingress(all, `{ports: [{port: 1, endPort: 65535}]}`)}},
		"another policy allows it to some": {policies: []string{egress(all, https), egress(web, `{ports: `+both+`}`)},
			says: []string{"no-dns|p0: spec.egress: no policy allows udp:53 and tcp:53 for quiet: "}},
		"another policy allows a half to some": {policies: []string{egress(`{matchLabels: {canary: "yes"}}`,
			`{ports: [{port: 53}]}`), egress(all, https)}, says: []string{
			"no-dns|p0: spec.egress: no policy allows udp:53 for web-2: ",
			"no-dns|p1: spec.egress: no policy allows udp:53 and tcp:53 for quiet, web-1: "}},
	}
}

func TestWhatIsOnlyAskedByAll(t *testing.T) {
	for _, list := range []map[string]asked{numbers(), excepts(), dns()} {
		for name, tt := range list {
			t.Run(name, func(t *testing.T) { tt.check(t) })
		}
	}
}

func (tt asked) check(t *testing.T) {
	text := village
	for i, spec := range tt.policies {
		text += "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p" + string(rune('0'+i)) +
			", namespace: shop}, spec: " + spec + "}\n"
	}
	r, err := manifest.Parse("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range lint.All(r.Snapshot(), lint.Facts{ContainerPorts: villagePorts(tt.loud)}) {
		got = append(got, f.Kind.String()+" "+f.String())
	}
	if len(got) != len(tt.says) {
		t.Fatalf("findings:\n%s\nwant %d", strings.Join(got, "\n"), len(tt.says))
	}
	for i, says := range tt.says {
		for part := range strings.SplitSeq(says, "|") {
			if !strings.Contains(got[i], part) {
				t.Errorf("finding\n%s\nwithout %q", got[i], part)
			}
		}
	}
	if list := lint.Check(r.Snapshot()); len(list) > 0 {
		t.Errorf("Check asks too: %v", list)
	}
}

// What Check asks, All asks as well, in the same order.
func TestAllHasWhatCheckHas(t *testing.T) {
	for name, tt := range questions() {
		r, err := manifest.Parse("x", []byte(town+"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, "+
			"metadata: {name: p, namespace: "+tt.namespace+"}, spec: {policyTypes: [Ingress, Egress], "+tt.spec+"}}"))
		if err != nil {
			t.Fatal(err)
		}
		var all []lint.Finding
		for _, f := range lint.All(r.Snapshot(), lint.Facts{}) {
			if f.Kind <= lint.UndeclaredPort {
				all = append(all, f)
			}
		}
		if diff := cmp.Diff(lint.Check(r.Snapshot()), all); diff != "" {
			t.Errorf("%s (-Check +All):\n%s", name, diff)
		}
	}
}

func TestKindsHaveDistinctWords(t *testing.T) {
	var words []string
	for k := range lint.NoDNS + 2 {
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, string(text))
	}
	slices.Sort(words)
	if len(slices.Compact(slices.Clone(words))) != int(lint.NoDNS+2) {
		t.Errorf("words %v", words)
	}
}
