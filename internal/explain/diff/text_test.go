// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain/diff"
	"github.com/podwall/podwall/internal/source/manifest"
)

func podText(namespace, name, app, address string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: %s}}
spec: {nodeName: one, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIPs: [%s]}
`, name, namespace, app, address)
}

const v4 = `{ip: 10.0.0.%d}`

// town has four pods of namespace shop and two of namespace other.
func town() []string {
	var list []string
	for i, name := range []string{"web-1", "web-2", "client", "db"} {
		list = append(list, podText("shop", name, strings.TrimRight(name, "-12"), fmt.Sprintf(v4, i+1)))
	}
	return append(list, podText("other", "a", "a", fmt.Sprintf(v4, 8)), podText("other", "b", "b", fmt.Sprintf(v4, 9)))
}

func policy(name, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name +
		", namespace: shop}\nspec: " + spec + "\n"
}

const closed = `{podSelector: {}}`

func stateOf(t *testing.T, documents []string) diff.State {
	t.Helper()
	r, err := manifest.Parse("x.yaml", []byte(strings.Join(documents, "---\n")))
	if err != nil || !r.AsWritten() {
		t.Fatal(err, r.Diagnostics)
	}
	s := state(r.Snapshot())
	s.Workload = map[cluster.Key]string{}
	for _, p := range r.Pods {
		if name, found := strings.CutPrefix(p.Key.Name, "web"); found && name != "" {
			s.Workload[p.Key] = "web"
		}
	}
	return s
}

// compared is the difference of two towns on all ports, with two hosts outside.
func compared(t *testing.T, before, after []string) *diff.Diff {
	t.Helper()
	one, two := stateOf(t, before), stateOf(t, after)
	d, err := diff.Compare(one, two, diff.Options{Ports: diff.Ranges(one.Snapshot, two.Snapshot),
		Hosts: []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.7")}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWords(t *testing.T) {
	with := func(policies ...string) []string { return append(town(), policies...) }
	web := policy("web", `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels:
		{app: client}}}], ports: [{port: 8080}]}]}`)
	for name, tt := range map[string]struct {
		before, after []string
		want          string
	}{
		"nothing": {with(), with(), `
No flow opens or closes.
Compared: every port and protocol.
`},
		"a rule allows": {with(policy("closed", closed)), with(policy("closed", closed), web), `
opens   shop/client → shop/web ×2 tcp:8080
        ingress: shop/web spec.ingress[0] allows it
Compared: every port and protocol.
`},
		"a rule allowed": {with(policy("closed", closed), web), with(policy("closed", closed)), `
closes  shop/client → shop/web ×2 tcp:8080
        ingress: shop/web spec.ingress[0] allowed it before
Compared: every port and protocol.
`},
		"a policy isolates": {with(), with(web), `
closes  everybody but shop/client → shop/web ×2 every port and protocol
        ingress: shop/web isolates
closes  shop/client → shop/web ×2 tcp:1-8079, tcp:8081-65535, udp, sctp, other
          protocols
        ingress: shop/web isolates
Compared: every port and protocol.
`},
		"a policy isolated": {with(policy("closed", closed)), with(), `
opens   everybody → every pod of namespace shop every port and protocol
        ingress: shop/closed isolated before
Compared: every port and protocol.
`},
		"each with each": {with(policy("closed", closed)), with(policy("closed", `{podSelector: {}, ingress: [{from:
			[{podSelector: {}}]}]}`)), `
opens   every pod of namespace shop → every pod of namespace shop every port and
          protocol
        ingress: shop/closed spec.ingress[0] allows it
Compared: every port and protocol.
`},
		"hosts": {with(), with(policy("out", `{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to:
			[{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 1, endPort: 65535}, {protocol: UDP}, {protocol: SCTP}]},
			{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}`)), `
closes  shop/db → 203.0.113.7 (outside) every port and protocol
        egress: shop/out isolates
closes  shop/db → every pod other protocols
        egress: shop/out isolates
Compared: every port and protocol.
`},
		"new and gone pods": {append(town()[1:], policy("closed", closed)), append(town()[:5], policy("closed", closed)), `
New pods: shop/web-1
Pods that are gone: other/b
opens   shop/web-1 → other/a, every host outside every port and protocol (new
          pods)
closes  other/b → every host outside every port and protocol (pods that are
          gone)
closes  other/b → other/a every port and protocol (pods that are gone)
closes  everybody → other/b every port and protocol (pods that are gone)
Compared: every port and protocol.
`},
		"one family": {append(town()[:3], podText("shop", "db", "db", `{ip: 10.0.0.4}, {ip: "fd00::4"}`),
			podText("shop", "six", "x", `{ip: 10.0.0.5}, {ip: "fd00::5"}`)),
			append(town()[:3], podText("shop", "db", "db", `{ip: 10.0.0.4}, {ip: "fd00::4"}`),
				podText("shop", "six", "x", `{ip: 10.0.0.5}, {ip: "fd00::5"}`),
				policy("p", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`)), `
closes  shop/six → shop/db every port and protocol (IPv6 only)
        ingress: shop/p isolates
Compared: every port and protocol.
`},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), compared(t, tt.before, tt.after).String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A pod whose address another pod gets is closed, and its equal is not.
func TestAPodWhoseAddressIsTaken(t *testing.T) {
	open := policy("p", `{podSelector: {}, ingress: [{}]}`)
	thief := podText("shop", "zz", "zz", fmt.Sprintf(v4, 1))
	d := compared(t, append(town(), open), append(append(town(), thief), open))
	var closes []string
	for _, c := range d.Changes {
		if c.With == diff.Staying && !c.Opens {
			closes = append(closes, c.Destinations.Ends...)
			if !slices.ContainsFunc(c.Because, func(c diff.Cause) bool { return c.What == diff.Contested }) {
				t.Errorf("because %v", c.Because)
			}
		}
	}
	if !slices.Equal(closes, []string{"shop/web-1"}) {
		t.Errorf("closed: %v\n%s", closes, d)
	}
}

func TestJSON(t *testing.T) {
	d := compared(t, append(town(), policy("closed", closed)), append(town()[1:], policy("closed", `{podSelector: {},
		ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]}`)))
	list, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`{"schema":"podwall.diff/v1","ports":["tcp:1-79","tcp:80","tcp:81-65535","udp","sctp",` +
			`"other protocols"],"gonePods":[{"namespace":"shop","name":"web-1"}],"opens":2,"closes":`,
		`{"change":"opens","sources":{"text":"shop/client","ends":["shop/client"]},"destinations":{"text":"every pod of ` +
			`namespace shop","ends":["shop/db","shop/web-2"]},"ports":["tcp:80"],"families":["IPv4"],"flows":2,"because":` +
			`[{"side":"ingress","what":"allows it","policy":{"namespace":"shop","name":"closed"},"path":"spec.ingress[0]"}]}`,
		`"with":"gone"`} {
		if !strings.Contains(string(list), part) {
			t.Errorf("without %s:\n%s", part, list)
		}
	}
}

func TestRanges(t *testing.T) {
	s := stateOf(t, append(town(), policy("p", `{podSelector: {}, ingress: [{ports:
		[{port: 1, endPort: 9}, {port: 65535},
		{port: http},
		{port: 53, protocol: UDP}, {port: nobody, protocol: UDP}, {protocol: SCTP}]}]}`)))
	want := "[tcp:1-9 tcp:10-8079 tcp:8080 tcp:8081-65534 tcp:65535 udp:1-52 udp:53 udp:54-65535 sctp other protocols]"
	if got := fmt.Sprint(diff.Ranges(s.Snapshot)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Five hundred pods, of fifty applications, lose their policies.
func BenchmarkFiveHundredPods(b *testing.B) {
	before := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}}
	for i := range 500 {
		before.Pods = append(before.Pods, &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: fmt.Sprint("pod-", i)},
			Node: fmt.Sprint("node-", i%2), Labels: cluster.NewLabels(map[string]string{"app": fmt.Sprint(i % 50)}),
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(1 + i%250)})}})
	}
	after := *before
	for i := range uint16(10) {
		before.Policies = append(before.Policies, &cluster.Policy{
			Key:     cluster.Key{Namespace: "shop", Name: fmt.Sprint("p", i)},
			Subject: cluster.Everything(), IsolatesIngress: true, Ingress: []cluster.Rule{{Peers: cluster.Peers{Any: true},
				Ports: cluster.Ports{List: []cluster.Port{{Protocol: cluster.TCP, First: 80 + 10*i, Last: 80 + 10*i}}}}}})
	}
	for b.Loop() {
		d, err := diff.Compare(state(before), state(&after), diff.Options{Ports: diff.Ranges(before)})
		if err != nil || len(d.Changes) != 1 {
			b.Fatal(err, d)
		}
	}
}
