// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// ownService is a pod that is all that its Service leads to, without any policy.
const ownService = `
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
`

// A bridge translates addresses of Services while it forwards, and gives a frame back to
// its sender in hairpin mode only.
func TestAPodReachesItsOwnServiceOnBridges(t *testing.T) {
	for _, wiring := range []string{"bridge", "cni-bridge"} {
		status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, ownService),
			"--wiring", wiring, "-o", "json")...)
		var r runReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
			t.Fatalf("%s: exit status %d, %v\n%s%s", wiring, status, err, out, stderr)
		}
		for _, s := range r.Services {
			if s.From["default/web"] != "1" {
				t.Errorf("%s: from itself to %s: %s", wiring, s.Front, s.From["default/web"])
			}
		}
		if len(r.Services) != 2 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "hairpin") {
			t.Errorf("%s: services %v, notes %q", wiring, r.Services, r.Notes)
		}
	}
}

// taken are addresses that the lab would use for itself if nobody had them, and names as
// long as they may be.
func taken() string {
	name := strings.Repeat(strings.Repeat("n", 62)+".", 4) + "x"
	namespace := strings.Repeat("s", 63)
	var b strings.Builder
	for i, a := range []string{"203.0.113.10", "172.30.0.11", "10.244.1.1", "10.244.1.255", "10.96.0.10", "10.244.1.10"} {
		fmt.Fprintf(&b, "{apiVersion: v1, kind: Pod, metadata: {name: %s%d, namespace: %s}, "+
			"spec: {nodeName: %s, containers: []}, status: {podIP: %s}}\n---\n", name[:250], i, namespace, name, a)
	}
	return b.String() + "{apiVersion: v1, kind: Pod, metadata: {name: free}}\n---\n" +
		"{apiVersion: v1, kind: Pod, metadata: {name: h}, spec: {hostNetwork: true}}\n---\n" +
		"{apiVersion: v1, kind: Service, metadata: {name: a, namespace: " + namespace + "}," +
		" spec: {selector: {}, ports: [{port: 80}]}}\n---\n" +
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: " + namespace + "}," +
		" spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.30.1.11/32}}]}]}}\n"
}

func TestRunTakesAddressesAndNamesThatUsersHave(t *testing.T) {
	wirings := []string{"routed", "bridge"}
	if os.Getenv("PODWALL_CNI_BIN") != "" || os.Getenv("CI") == "true" {
		wirings = append(wirings, "cni-bridge", "cni-ptp")
	}
	for _, wiring := range wirings {
		// The plugin bridge knows one subnet on a node.
		text := taken()
		if wiring == "cni-bridge" {
			text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: n1}, status: {podIP: 172.30.0.1}}\n---\n" +
				"{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {nodeName: n1}, status: {podIP: 172.30.0.11}}\n"
		}
		status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, text),
			"--wiring", wiring, "--probe", "tcp:80")...)
		if status != 0 || stderr != "" || !strings.Contains(out, "every verdict is what the policies say") {
			t.Errorf("%s: exit status %d\n%s%s", wiring, status, out, stderr)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(line) - 1; strings.ContainsAny(line, "✓✗·") && n > columns {
				t.Errorf("%s: %d columns: %s", wiring, n, line)
			}
		}
	}
}

func TestRunTriesWhatItIsAskedFor(t *testing.T) {
	dir := manifests(t, shop+"---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n---\n"+
		"{apiVersion: v1, kind: Pod, metadata: {name: done}, status: {phase: Succeeded, podIP: 10.1.1.1}}\n")
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", dir, "--probe", "tcp:8080",
		"--from", "default", "--from", "192.0.2.2", "--to", "app=web")...)
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	for _, part := range []string{"3 endpoints", "  1 default/stranger (machine)  [✗]\n",
		"  3 192.0.2.2 (outside)          ✓\n", "6 packets", "  ✗ default/stranger\n",
		"Left out: 1 Pod on the network of the node", "Left out: 1 Pod finished: default/done", "Left out: 1 ConfigMap"} {
		if !strings.Contains(out, part) {
			t.Errorf("the output does not say %q:\n%s", part, out)
		}
	}
	if strings.Contains(out, "shop/client") {
		t.Errorf("somebody was tried whom nobody asked for:\n%s", out)
	}
	status, out, stderr = commandLine(t, withAgentFlag("run", "-f", dir, "--to", "shop/webb")...)
	if status != statusUsage || out != "" || !strings.Contains(stderr, `--to "shop/webb" names no pod`) {
		t.Errorf("exit status %d\n%s%s", status, out, stderr)
	}
}

// vm is a pod with a further address, and a policy by which it is a peer.
const vm = `
apiVersion: v1
kind: Pod
metadata: {name: vm, labels: {a: vm}, annotations: {podwall.io/extra-addresses: "10.200.0.5, 10.201.0.5"}}
spec: {nodeName: n1}
status: {podIP: 10.244.7.5}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {a: web}}, spec: {nodeName: n2}, status: {podIP: 10.244.8.5}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {podSelector: {matchLabels: {a: web}}, ingress: [{from: [{podSelector: {matchLabels: {a: vm}}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: q}
spec: {podSelector: {matchLabels: {a: vm}}, policyTypes: [Ingress]}
`

func TestFurtherAddressesAreThePods(t *testing.T) {
	dir := manifests(t, vm)
	for _, wiring := range []string{"routed", "bridge", "cni-bridge", "cni-ptp"} {
		status, out, stderr := commandLine(t, withAgentFlag("run", "-f", dir,
			"--wiring", wiring, "--probe", "tcp:80", "-o", "json",
			"--extra-addresses", "10.200.0.0/24,10.201.0.0/24", "--namespace", "default", "--host", "192.0.2.1")...)
		var r runReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
			t.Fatalf("%s: exit status %d, %v\n%s%s", wiring, status, err, out, stderr)
		}
		ends := []string{"default/vm", "default/vm at 10.200.0.5", "default/vm at 10.201.0.5", "default/web", "192.0.2.1"}
		if diff := cmp.Diff(ends, r.Endpoints); diff != "" {
			t.Errorf("%s: endpoints (-want +got):\n%s", wiring, diff)
		}
		if got, want := strings.Join(r.Probes[0].After, " "), "---11 ---11 ---11 000-1 0000-"; got != want {
			t.Errorf("%s: %s, want %s", wiring, got, want)
		}
	}
	// What the agents would not take is no address of the pod here either.
	args := withAgentFlag("run", "-f", dir, "--probe", "tcp:80", "--extra-addresses", "10.200.0.0/24")
	status, out, stderr := commandLine(t, args...)
	if status != statusNotWritten || strings.Contains(out, "10.201.0.5") || !strings.Contains(out, "vm at 10.200.0.5") ||
		!strings.Contains(stderr, "10.201.0.5 is not counted") {
		t.Errorf("exit status %d\n%s%s", status, out, stderr)
	}
	for flag, want := range map[string]bool{"": false, "10.200.0.0/24": true} {
		_, out, stderr := commandLine(t, "ruleset", "-f", dir, "--node", "n2", "--extra-addresses", flag)
		if strings.Contains(out, "10.200.0.5") != want || !strings.Contains(stderr, "--extra-addresses") {
			t.Errorf("--extra-addresses %q:\n%s%s", flag, out, stderr)
		}
	}
}

// doubtful are policies that are enforced as they are written.
const doubtful = `
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop},
  spec: {podSelector: {matchLabels: {app: wep}}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: q, namespace: shpo}, spec: {podSelector: {}}}
`

func TestRunWarnsOfWhatWasProbablyNotMeant(t *testing.T) {
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, doubtful),
		"-o", "json", "--probe", "tcp:80")...)
	var r runReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
		t.Fatalf("exit status %d, %v\n%s%s", status, err, out, stderr)
	}
	var said []string
	for _, d := range r.Diagnostics {
		said = append(said, d.String())
		if !strings.Contains(stderr, d.String()) {
			t.Errorf("stderr does not say %q", d)
		}
	}
	for i, part := range []string{"did you mean app=web?", "there is no namespace shpo"} {
		if len(said) != 2 || !strings.Contains(said[i], part) {
			t.Errorf("said %q, want two with %q", said, part)
		}
	}
}

// testdata/kubectl.yaml is what kubectl get ns,pods,netpol,svc -A -o yaml --show-managed-fields
// printed of a real API server.
func TestRunReadsWhatKubectlPrints(t *testing.T) {
	file, err := os.Open("testdata/kubectl.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out, errs strings.Builder
	args := withAgentFlag("run", "-f", "-", "-o", "json", "--to", "shop", "--wiring", "bridge")
	if status := Run(t.Context(), "test", args, Streams{In: file, Out: &out, Err: &errs}); status != 0 || errs.Len() > 0 {
		t.Fatalf("exit status %d\n%s%s", status, &out, &errs)
	}
	var r runReport
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatal(err)
	}
	ends := []string{"monitoring/prometheus-0", "shop/db-0", "shop/web-7d9c8b5f4-abcde", "shop/web-7d9c8b5f4-fghij",
		"203.0.113.10", "2001:db8:cafe::a", "192.0.2.2"}
	if diff := cmp.Diff(ends, r.Endpoints); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	// tcp:5432 to the database, tcp:8080 to the first web pod.
	if got := column(r.Probes[0].After, 1) + " " + column(r.Probes[2].After, 2); got != "0-110-0 10-00-1" {
		t.Errorf("to the database and to web: %s", got)
	}
	left := map[string]string{}
	for _, l := range r.LeftOut {
		left[strings.Join(l.Objects, " ")] = l.Kind
	}
	want := map[string]string{"kube-system/kube-proxy-x7k2p": "Pod", "shop/migrate-9hx4n": "Pod",
		"default/kubernetes": "Service", "shop/db": "Service"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	from := map[string]string{"monitoring/prometheus-0": "1", "shop/db-0": "0",
		"shop/web-7d9c8b5f4-abcde": "~", "shop/web-7d9c8b5f4-fghij": "~"}
	if len(r.Services) != 1 || !cmp.Equal(r.Services[0].From, from) {
		t.Errorf("services %+v", r.Services)
	}
}
