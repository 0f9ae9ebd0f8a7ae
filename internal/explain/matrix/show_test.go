// SPDX-License-Identifier: Apache-2.0

package matrix_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/source/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func policyFor(app int) *cluster.Policy {
	var p networkingv1.NetworkPolicy
	err := yaml.Unmarshal(fmt.Appendf(nil, `
metadata: {name: app-%d, namespace: team-%d}
spec:
  podSelector: {matchLabels: {app: "%d"}}
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: "%d"}}}],
    ports: [{port: 80}, {port: 443}]}]
`, app, app%10, app, (app+1)%50), &p)
	if err != nil {
		panic(err)
	}
	policy, _ := convert.Policy(&p)
	return policy
}

const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: other}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}}, spec: {nodeName: one},
 status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: shop, labels: {app: web, canary: "yes"}},
 spec: {nodeName: two}, status: {podIPs: [{ip: 10.0.1.2}, {ip: "fd00::2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: client-with-a-name-that-does-not-fit-into-a-row, namespace: other},
 spec: {nodeName: one}, status: {podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: proxy, namespace: other}, spec: {nodeName: one, hostNetwork: true},
 status: {podIPs: [{ip: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: other}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {canary: "yes"}}
  ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}, {ipBlock: {cidr: 10.0.0.3/32}}],
    ports: [{port: 80}, {port: 443}]}]
`

func shopMatrix(t *testing.T, by matrix.By) *matrix.Matrix {
	t.Helper()
	r, err := manifest.Parse("shop.yaml", []byte(shop))
	if err != nil || !r.AsWritten() {
		t.Fatal(err, r.Diagnostics)
	}
	web := func(name string) cluster.Key { return cluster.Key{Namespace: "shop", Name: name} }
	return build(t, r.Snapshot(), matrix.Options{By: by,
		Workload: map[cluster.Key]string{web("web-1"): "web", web("web-2"): "web"},
		Hosts:    []netip.Addr{netip.MustParseAddr("198.51.100.7")},
		Ports:    []matrix.Port{http(), {Protocol: inet.TCP, Number: 443}, {Protocol: inet.UDP, Number: 53}}})
}

func http() matrix.Port { return matrix.Port{Protocol: inet.TCP, Number: 80} }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestTextForPeople(t *testing.T) {
	for _, by := range []matrix.By{matrix.ByPod, matrix.ByWorkload, matrix.ByNamespace} {
		text := shopMatrix(t, by).String()
		golden(t, string(by)+".txt", []byte(text))
	}
}

// Text is at most 80 columns wide, however many ends there are, and shows each pair once.
func TestTextIsAsWideAsATerminal(t *testing.T) {
	m := build(t, large(60), matrix.Options{By: matrix.ByPod, Ports: []matrix.Port{http()}})
	text := m.String()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	marks := 0
	matrixOnly, _, _ := strings.Cut(text, "A row is")
	for _, r := range matrixOnly {
		if strings.ContainsRune("✓✗·", r) {
			marks++
		}
	}
	if marks != 60*60 {
		t.Errorf("%d marks, want 3600", marks)
	}
}

func TestAnEmptyClusterIsSaid(t *testing.T) {
	m := build(t, &cluster.Snapshot{}, matrix.Options{By: matrix.ByPod, Ports: []matrix.Port{http()}})
	if text := m.String(); !strings.HasPrefix(text, "There is no pod that policies can speak about.\n") {
		t.Error(text)
	}
	if list, err := json.Marshal(m); err != nil || !strings.Contains(string(list), `"ends":[],"cells":[]`) {
		t.Errorf("%s %v", list, err)
	}
}

func TestJSONIsStable(t *testing.T) {
	list, err := json.MarshalIndent(shopMatrix(t, matrix.ByWorkload), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "workload.json", append(list, '\n'))
}

func TestThePageIsSmallAndNeedsNothing(t *testing.T) {
	var b bytes.Buffer
	m := build(t, large(50), matrix.Options{By: matrix.ByPod, Ports: []matrix.Port{http()}})
	if err := m.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 100_000 {
		t.Errorf("%d bytes for 50×50", b.Len())
	}
	t.Logf("%d bytes for 50×50", b.Len())
	foreign := regexp.MustCompile(`(?i)<script|https?:|src=|url\(|@import|onclick`)
	if found := foreign.FindString(b.String()); found != "" {
		t.Errorf("the page has %q", found)
	}
	if n := strings.Count(b.String(), "<td "); n != 2500 {
		t.Errorf("%d cells", n)
	}
}

// Names come from files, and may be anything there.
func TestThePageEscapesNames(t *testing.T) {
	const evil = `x"><script>alert(1)</script>`
	snap := large(2)
	snap.Pods[0].Key.Name = evil
	snap.Pods = append(snap.Pods, &cluster.Pod{Key: cluster.Key{Namespace: "<b>", Name: evil}})
	var b bytes.Buffer
	m := build(t, snap, matrix.Options{By: matrix.ByPod, Ports: []matrix.Port{http()}})
	if err := m.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<script") || strings.Contains(b.String(), "<b>") ||
		!strings.Contains(b.String(), "&lt;script&gt;") {
		t.Error(b.String())
	}
}

func TestThePage(t *testing.T) {
	var b bytes.Buffer
	if err := shopMatrix(t, matrix.ByWorkload).WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "workload.html", b.Bytes())
}

func BenchmarkFiveHundredPodsAndThreePorts(b *testing.B) {
	snap := large(500)
	for b.Loop() {
		build(b, snap, matrix.Options{By: matrix.ByPod, Ports: []matrix.Port{{Protocol: inet.TCP, Number: 80},
			{Protocol: inet.TCP, Number: 81}, {Protocol: inet.UDP, Number: 53}}})
	}
}
