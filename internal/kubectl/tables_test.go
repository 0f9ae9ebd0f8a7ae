// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

// file writes manifests for a test.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func podNamed(name, rest string) string {
	return "{apiVersion: v1, kind: Pod, metadata: {name: " + name + ", namespace: shop, labels: {app: " + name + "}}" +
		rest + "}\n---\n"
}

func policyNamed(name, spec string) string {
	return "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: " + name +
		", namespace: shop}, spec: " + spec + "}\n---\n"
}

func TestWrongCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"matrix --by node":                     `unknown --by "node", want namespace, workload or pod`,
		"matrix -o xml":                        `unknown output "xml", want text, json, yaml or html`,
		"matrix --port http":                   `--port "http": want tcp:80, 80, 53/udp or icmp`,
		"matrix --port tcp:0":                  `--port "tcp:0": want tcp:80`,
		"matrix --host web":                    `--host "web": want an address`,
		"matrix --host 192.168.77.1":           "a pod, a node or a Service has this address",
		"matrix -n shopp":                      `no pod is in namespace "shopp"`,
		"lint -o html":                         `unknown output "html"`,
		"diff a b":                             "name OLD and NEW without -f",
		"diff no-such-file":                    "no-such-file",
		"diff testdata/mended.yaml -o html":    `unknown output "html"`,
		"diff testdata/mended.yaml --host x":   `--host "x": want an address`,
		"diff testdata/mended.yaml --port 1-2": `--port "1-2": want`,
		"rules -n shop svc/web":                "svc/shop/web is not a pod",
		"rules -n shop wep":                    "web",
		"rules -n shop web --output=xml":       `unknown output "xml"`,
	} {
		status, out, said := commandLine(t, append(strings.Fields(line), "-f", "testdata/shop.yaml")...)
		if status != statusUsage || out != "" || !strings.Contains(strings.Join(strings.Fields(said), " "), want) {
			t.Errorf("%s: status %d, %s%s, want %s", line, status, out, said, want)
		}
	}
}

func TestTheStandardInputIsOneState(t *testing.T) {
	status, _, said := commandLine(t, "diff", "-f", "-", "-")
	if status != statusUsage || !strings.Contains(said, "one of the states") {
		t.Errorf("status %d: %s", status, said)
	}
}

// The new state may come from the standard input.
func TestANewStateFromTheStandardInput(t *testing.T) {
	text, err := os.ReadFile("testdata/mended.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	status := Run(t.Context(), "test", []string{"diff", "-f", "testdata/shop.yaml", "-"},
		Streams{In: bytes.NewReader(text), Out: &out, Err: &said})
	if status != statusNo || !strings.Contains(out.String(), "opens   shop/client → shop/web ×2 tcp:8080") {
		t.Errorf("status %d: %s%s", status, &out, &said)
	}
}

func TestTwoStatesOfFiles(t *testing.T) {
	pods := podNamed("a", "") + podNamed("b", "")
	one, two := file(t, pods), file(t, pods+policyNamed("p", "{podSelector: {matchLabels: {app: a}}}"))
	status, out, _ := commandLine(t, "diff", one, two)
	want := "closes  everybody → shop/a every port and protocol\n        ingress: shop/p isolates"
	if status != statusNo || !strings.Contains(out, want) {
		t.Errorf("status %d:\n%s", status, out)
	}
	status, out, _ = commandLine(t, "diff", one, one)
	if status != 0 || !strings.HasPrefix(out, "No flow opens or closes.") {
		t.Errorf("status %d:\n%s", status, out)
	}
	broken := file(t, pods+policyNamed("p", "{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 0}]}]}"))
	status, _, said := commandLine(t, "diff", broken, broken)
	if status != statusNotWritten || strings.Count(said, "port 0 is not in") != 1 {
		t.Errorf("status %d: %s", status, said)
	}
}

// Where a policy closes a flow, diff names what of the policy was not understood, with added objects too.
func TestWhatWasNotUnderstoodIsACause(t *testing.T) {
	const allows = `{podSelector: {matchLabels: {app: a}}, egress: [{too: []}], policyTypes: [Ingress, Egress],
		ingress: [{ports: [{port: 0}]}, {from: [{podSelector: {matchLabels: {app: b}}}]}]}`
	pods := podNamed("a", "") + podNamed("b", "")
	right := strings.ReplaceAll(allows, "egress: [{too: []}]", "egress: [{}]")
	wrong := strings.ReplaceAll(right, "from:", "form:")
	for name, tt := range map[string]struct {
		before, after string
		want          []string
	}{
		"of the rule that allowed": {right, wrong, []string{"ingress: shop/p spec.ingress[1] allowed it before",
			"ingress: shop/p spec.ingress[1].form was not understood"}},
		"of a policy that isolates": {"{podSelector: {matchLabels: {app: free}}}", allows,
			[]string{"ingress: shop/p isolates", "ingress: shop/p spec.ingress[0].ports[0].port was not understood",
				"egress: shop/p isolates", "egress: shop/p spec.egress[0].too was not understood"}},
	} {
		base, next := file(t, pods+policyNamed("p", tt.before)), policyNamed("p", tt.after)
		_, whole, _ := commandLine(t, "diff", base, file(t, pods+next))
		_, added, _ := commandLine(t, "diff", "-f", base, file(t, next))
		for _, out := range []string{whole, added} {
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%s: no %q in\n%s", name, want, out)
				}
			}
		}
	}
	// A fault that both states have is a cause where the policy begins to isolate, and none where a rule has gone.
	faulty := policyNamed("p", "{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 0}]}]}")
	free := strings.ReplaceAll(podNamed("a", ""), "app: a", "app: free")
	_, out, _ := commandLine(t, "diff", "-f", file(t, free+podNamed("b", "")+faulty), file(t, podNamed("a", "")))
	if !strings.Contains(out, "ingress: shop/p spec.ingress[0].ports[0].port was not understood") {
		t.Errorf("a pod that an unchanged policy selects now:\n%s", out)
	}
	two := strings.ReplaceAll(faulty, "0}]}]", "0}]}, {from: [{podSelector: {matchLabels: {app: b}}}]}]")
	_, out, _ = commandLine(t, "diff", file(t, pods+two), file(t, pods+faulty))
	if !strings.Contains(out, "shop/p spec.ingress[1] allowed it before") || strings.Contains(out, "understood") {
		t.Errorf("a rule that has gone:\n%s", out)
	}
	status, out, _ := commandLine(t, "diff", file(t, pods+policyNamed("p", wrong)), file(t, pods))
	if status == statusUsage || strings.Contains(out, "understood") {
		t.Errorf("status %d: a policy that is gone closes nothing\n%s", status, out)
	}
}

// Objects that are added replace those of their name: a namespace that is only mentioned
// keeps its labels, and a pod its address.
func TestWhatAppliedObjectsReplace(t *testing.T) {
	const byTeam = `{podSelector: {matchLabels: {app: a}}, ingress:
		[{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}`
	base := file(t, "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}\n---\n"+
		podNamed("a", "")+podNamed("b", "")+policyNamed("p", byTeam))
	const namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: blue}}}"
	for name, tt := range map[string]struct{ text, out, said string }{
		"the same policy":       {policyNamed("p", byTeam), "No flow opens or closes.", ""},
		"labels of a namespace": {namespace, "closes  shop/b → shop/a", ""},
		"labels of a pod": {strings.ReplaceAll(podNamed("a", ""), "app: a", "app: free"),
			"opens   every host outside → shop/a", ""},
		"a new pod without an address": {podNamed("c", ""), "No flow opens or closes.",
			"pod shop/c has no address yet: its flows are not compared"},
		"a new pod": {podNamed("c", ", spec: {nodeName: one}, status: {podIPs: [{ip: 10.9.9.9}]}"),
			"New pods: shop/c", ""},
	} {
		status, out, said := commandLine(t, "diff", "-f", base, file(t, tt.text))
		if status == statusUsage || !strings.Contains(out, tt.out) || !strings.Contains(said, tt.said) {
			t.Errorf("%s: status %d\n%s%s", name, status, out, said)
		}
	}
}

func TestLintStatuses(t *testing.T) {
	pods := podNamed("a", ", spec: {containers: [{name: c, ports: [{containerPort: 8080}]}]}") + podNamed("b", "")
	for name, tt := range map[string]struct {
		text   string
		status int
		out    string
	}{
		"nothing": {pods + policyNamed("p", "{podSelector: {}}"), 0, "nothing found\n"},
		"a question": {pods + policyNamed("p", "{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 80}]}]}"),
			statusNo, "[undeclared-number]\n1 finding\n"},
		"a warning": {pods + policyNamed("p", "{podSelector: {}, egress: []}"), statusNo, "[reader]\n1 finding\n"},
		"an error": {pods + policyNamed("p", "{podSelector: {}, ingress: [{ports: [{port: 0}]}]}"), statusNotWritten,
			"[reader]\n1 finding\n"},
		"an absent namespace": {pods + strings.ReplaceAll(policyNamed("p", "{podSelector: {}}"), "shop", "shopp"), statusNo,
			"[absent-namespace]\n1 finding\n"},
		"no pods": {policyNamed("p", "{podSelector: {matchLabels: {app: a}}}"), 0, "nothing found\n"},
		"no pods, a block": {policyNamed("p", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8,
			except: [10.0.0.0/9]}}, {ipBlock: {cidr: 10.0.0.0/8}}]}]}`), statusNo, "[refilled-except]\n1 finding\n"},
		"no pods, an error": {policyNamed("p", "{podSelector: {}, ingress: [{ports: [{port: 0}]}]}"), statusNotWritten,
			"[reader]\n1 finding\n"},
	} {
		status, out, said := commandLine(t, "lint", file(t, tt.text))
		if status != tt.status || !strings.HasSuffix(strings.ReplaceAll(out, "\n  ", " "), tt.out) {
			t.Errorf("%s: status %d, want %d\n%s%s", name, status, tt.status, out, said)
		}
	}
}

// The page of matrix is whole, and no name in it does something to a terminal.
func TestThePageOfAMatrix(t *testing.T) {
	status, out, _ := commandLine(t, "matrix", "-f", "testdata/shop.yaml", "-o", "html")
	if status != 0 || !strings.HasPrefix(out, "<!DOCTYPE html>") || !strings.HasSuffix(out, "</html>\n") {
		t.Errorf("status %d: %s", status, out)
	}
	if got := withoutControls("a\x1b[2J\u009b\tä\n"); got != "a\ufffd[2J\ufffd\tä\n" {
		t.Errorf("%q", got)
	}
}

// Of a cluster, too, all ports that containers declare are known.
func TestPortsOfALivePod(t *testing.T) {
	r := &reading{result: &manifest.Result{}, workload: map[cluster.Key]string{},
		declared: map[cluster.Key][]cluster.NamedPort{}}
	r.addPods(&corev1.PodList{Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 80},
			{ContainerPort: 53, Protocol: "UDP", Name: "dns"}, {ContainerPort: 7, Protocol: "ICMP"}}}}}}}})
	got := r.declared[cluster.Key{Namespace: "shop", Name: "a"}]
	if len(got) != 2 || got[0].Port != 80 || got[0].Protocol != cluster.TCP || got[1].Name != "dns" {
		t.Errorf("%v", got)
	}
}
