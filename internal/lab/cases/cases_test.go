// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/netpol/program"
)

// line is a step in which a policy of shop lets nobody in: web and db are on
// two nodes, out is outside.
func line(id string, step int) string {
	return fmt.Sprintf(`{"schema":"npcase/v1","id":%q,"source":"test","case":1,"step":%d,"steps":2,"description":"about it","family":"IPv4",`+
		`"namespaces":[{"name":"shop","labels":{"team":"a"}}],`+
		`"pods":[{"namespace":"shop","name":"web","node":"n1","ip":"10.0.1.1","labels":{"app":"web"},"ports":[{"name":"http","port":80,"protocol":"TCP"},{"port":81,"protocol":"UDP"}]},`+
		`{"namespace":"shop","name":"db","node":"n2","ip":"10.0.2.1","labels":{},"ports":null}],`+
		`"externals":[{"name":"ext/out","ip":"203.0.113.9"}],`+
		`"policies":[{"kind":"NetworkPolicy","apiVersion":"networking.k8s.io/v1","metadata":{"name":"p","namespace":"shop"},"spec":{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"ports":[{"port":"http"}],"from":[{"podSelector":{}}]}]}}],`+
		`"endpoints":["shop/web","shop/db","ext/out"],`+
		`"probes":[{"port":80,"portName":"http","protocol":"TCP","expected":["111","111","01-"]},{"port":81,"protocol":"UDP","expected":["111","011","01-"]}]}`, id, step)
}

func one(t *testing.T) *cases.Step {
	t.Helper()
	list, err := cases.Read(strings.NewReader(line("a", 1)))
	if err != nil {
		t.Fatal(err)
	}
	return list[0].Steps[0]
}

func TestReadGroupsStepsPlainAndCompressed(t *testing.T) {
	text := line("a.1", 1) + "\n\n" + line("a.2", 2) + "\n" + line("b.1", 1) + "\n" + line("b.3", 3)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, input := range map[string]string{"plain": text, "gzip": packed.String()} {
		list, err := cases.Read(strings.NewReader(input))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got [][]string
		for _, c := range list {
			var ids []string
			for _, s := range c.Steps {
				ids = append(ids, s.ID)
			}
			got = append(got, ids)
		}
		if diff := cmp.Diff([][]string{{"a.1", "a.2"}, {"b.1"}, {"b.3"}}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestReadRefusesWhatItCannotCompare(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"another schema", "npcase/v1", "npcase/v9", "schema"},
		{"broken JSON", `"step":1`, `"step":`, "line 1"},
		{"no id", `"id":"a"`, `"id":""`, "id is empty"},
		{"an unknown family", "IPv4", "IPX", "family"},
		{"an address of the other family", "IPv4", "IPv6", "is not IPv6"},
		{"an unknown endpoint", `["shop/web"`, `["shop/nobody"`, "neither a pod nor an external"},
		{"a short row", `"01-"]},{`, `"01"]},{`, "3 rows of 3"},
		{"a missing row", `,"01-"]},{`, `]},{`, "3 rows of 3"},
		{"an unknown protocol", `"protocol":"UDP","expected"`, `"protocol":"ICMP","expected"`, "unknown protocol"},
		{"no port", `{"port":81,"protocol":"UDP","e`, `{"protocol":"UDP","e`, "port is missing"},
		{"a bad address", "203.0.113.9", "203.0.113.09", "line 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(line("a", 1), tt.old, tt.new, 1)
			if _, err := cases.Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestCompareKnowsLeakFromBlock(t *testing.T) {
	step := one(t)
	o := cases.Observed{ID: "a", Probes: []cases.ObservedProbe{
		{Port: 81, Protocol: "TCP", Observed: []string{"000", "000", "000"}}, // not expected at all
		{Port: 81, Protocol: "UDP", Observed: []string{"110", "111", "?1-"}}, // one block, one leak, one unknown
	}}
	var sum cases.Summary
	var got []string
	for _, d := range sum.Add(step, o) {
		got = append(got, d.String())
	}
	want := []string{
		"BLOCK a  shop/web → ext/out udp:81  (about it)",
		"LEAK  a  shop/db → shop/web udp:81  (about it)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, want := sum.String(), "1 steps, 7 verdicts: 1 LEAK, 1 BLOCK; 9 not observed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if sum.OK() || new(cases.Summary).OK() {
		t.Error("differences, or nothing compared, are reported as OK")
	}
}

func TestObservedIsWrittenAsOneLine(t *testing.T) {
	var b strings.Builder
	o := cases.Observed{ID: "a", Probes: []cases.ObservedProbe{{Port: 80, Protocol: "TCP", Observed: []string{"1-"}}}}
	if err := o.Write(&b); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `{"id":"a","probes":[{"port":80,"protocol":"TCP","observed":["1-"]}]}`+"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSnapshotHoldsTheStep(t *testing.T) {
	snap := one(t).Snapshot()
	web := snap.Pods[1]
	if web.Key.Name != "web" || web.Node != "n1" || !web.Networked() || web.Labels.Get("app") != "web" {
		t.Errorf("got pod %+v", web)
	}
	if diff := cmp.Diff([]cluster.NamedPort{{Name: "http", Protocol: cluster.TCP, Port: 80}}, web.NamedPorts()); diff != "" {
		t.Error(diff)
	}
	if len(snap.Policies) != 1 || !snap.Policies[0].IsolatesIngress || snap.Policies[0].IsolatesEgress {
		t.Errorf("got policies %+v", snap.Policies)
	}
}

func TestHostNetworkAndPhaseAreUnderstood(t *testing.T) {
	text := strings.Replace(line("a", 1), `"ports":null`, `"ports":null,"hostNetwork":true,"phase":"Failed"`, 1)
	list, err := cases.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if p := list[0].Steps[0].Snapshot().Pods[0]; !p.HostNetwork || !p.Finished {
		t.Errorf("got %+v", p)
	}
}

func TestAnEndpointHasTheAddressOfTheStepsFamily(t *testing.T) {
	step := one(t)
	step.Family, step.Pods[0].Terminating = "IPv6", true
	step.Pods[0].OtherIPs = []netip.Addr{netip.MustParseAddr("fd00::5")}
	step.Externals[0].OtherIPs = []netip.Addr{netip.MustParseAddr("2001:db8::9")}
	ends, err := step.Ends()
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(ends[0].Addr, ends[1].Addr, ends[2].Addr)
	if want := "fd00::5 10.0.2.1 2001:db8::9"; got != want { // the second has no other address
		t.Errorf("got %s, want %s", got, want)
	}
	if web := step.Snapshot().Pods[1]; len(web.IPs) != 2 || !web.Terminating {
		t.Errorf("got %+v", web)
	}
}

func TestManifestsSayTheSameAsTheSnapshot(t *testing.T) {
	for _, c := range read(t, "../../../testdata/cases/peer-defects.jsonl") {
		step := c.Steps[0]
		want := step.Snapshot()
		files, err := step.Manifests()
		if err != nil {
			t.Fatal(err)
		}
		got := fromManifests(t, files["cluster.yaml"])
		got.AuditNamespaces = want.AuditNamespaces // it is not in the manifests
		if len(got.Pods) != len(want.Pods) || len(got.Policies) != len(want.Policies) {
			t.Fatalf("%s: got %d pods and %d policies", step.ID, len(got.Pods), len(got.Policies))
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b cluster.Selector) bool { return a.String() == b.String() }),
			cmp.Comparer(func(a, b *cluster.IPBlock) bool { return fmt.Sprint(a) == fmt.Sprint(b) }),
			cmp.Comparer((*cluster.Pod).Equal), cmpopts.IgnoreUnexported(cluster.Policy{})); diff != "" {
			t.Errorf("%s: %s", step.ID, diff)
		}
	}
}

func fromManifests(t *testing.T, text []byte) *cluster.Snapshot {
	t.Helper()
	snap := &cluster.Snapshot{}
	for _, doc := range bytes.Split(text, []byte("---\n")) {
		var ns corev1.Namespace
		var pod corev1.Pod
		var np networkingv1.NetworkPolicy
		if err := yaml.Unmarshal(doc, &ns); err != nil {
			t.Fatal(err)
		}
		var err error
		switch ns.Kind {
		case "Namespace":
			snap.Namespaces = append(snap.Namespaces, convert.Namespace(&ns))
		case "Pod":
			err = yaml.Unmarshal(doc, &pod)
			snap.Pods = append(snap.Pods, convert.Pod(&pod))
		default:
			err = yaml.Unmarshal(doc, &np)
			p, _ := convert.Policy(&np)
			snap.Policies = append(snap.Policies, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(snap.Pods, func(a, b *cluster.Pod) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(snap.Policies, func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
	return snap
}

func TestProgramBackendAsksTheNodesOfBothEnds(t *testing.T) {
	asked := map[program.Flow]int{}
	b := cases.NewProgramBackend(func(_ *cluster.Snapshot, node string) *program.Program {
		return &program.Program{Pods: []program.Pod{{Name: node}}}
	}, func(p *program.Program, f program.Flow) bool {
		asked[f]++
		return p.Pods[0].Name != "n2" // n2 drops everything
	})
	step := one(t)
	step.Probes = step.Probes[:1]
	o, err := b.Judge(t.Context(), step)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"101", "000", "10-"}, o.Probes[0].Observed); diff != "" {
		t.Error(diff)
	}
	for f, n := range asked {
		want := 1
		if f.Src != f.Dst && f.Src.IsPrivate() && f.Dst.IsPrivate() {
			want = 2 // pods on two nodes
		}
		if n != want || f.DstPort != 80 || f.Protocol != inet.TCP {
			t.Errorf("asked %d times, want %d: %+v", n, want, f)
		}
	}
}

func TestCheckReportsFailedStepsAndStopsWhenCancelled(t *testing.T) {
	step := one(t)
	step.ClusterPolicies = []any{1}
	var report strings.Builder
	sum, err := cases.Check(t.Context(), []cases.Case{{Steps: []*cases.Step{step}}}, cases.OracleBackend{}, &report, nil)
	if err != nil || sum.Failed != 1 || sum.OK() || !strings.Contains(report.String(), "cluster policies") {
		t.Errorf("got %v, %v, %q", sum, err, report.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cases.Check(ctx, []cases.Case{{Steps: []*cases.Step{step}}}, cases.OracleBackend{}, &report, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
