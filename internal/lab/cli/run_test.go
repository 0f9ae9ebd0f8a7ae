// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
)

// shop is a cluster as users write it: no nodes, no addresses.
const shop = `
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web}}
  spec: {containers: [{name: c, image: x, ports: [{name: http, containerPort: 8080}]}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: client, namespace: shop, labels: {app: client}}
  spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy}
spec: {hostNetwork: true, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Node
metadata: {name: machine}
status: {addresses: [{type: InternalIP, address: 192.168.77.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: client}}
    - ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}
    ports: [{port: http}]
`

func manifests(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunShowsWhoReachesWhomInTheUsersManifests(t *testing.T) {
	for _, datapath := range []string{"nat", "filter"} {
		status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, shop), "--datapath", datapath, "-o", "json")...)
		if status != 0 {
			t.Fatalf("exit status %d\n%s\n%s", status, out, stderr)
		}
		var r runReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		ends := []string{"default/stranger", "shop/client", "shop/web", "203.0.113.10", "2001:db8:cafe::a", "192.0.2.2", "192.0.2.129"}
		if diff := cmp.Diff(ends, r.Endpoints); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
		p := r.Probes[0]
		if p.Protocol != "TCP" || p.Port != 8080 || p.Family != "IPv4" {
			t.Fatalf("first probe is %s %d %s", p.Protocol, p.Port, p.Family)
		}
		// To the web pod: from the stranger and the world dropped, from the client
		// and from the block, but not from its hole, arrived.
		if got, want := column(p.After, 2), "01-0-10"; got != want {
			t.Errorf("to shop/web %q, want %q", got, want)
		}
		if got, want := column(p.Before, 2), "11-1-11"; got != want {
			t.Errorf("to shop/web without policies %q, want %q", got, want)
		}
		from := map[string]string{"default/stranger": "0", "shop/client": "1", "shop/web": "1"}
		if len(r.Services) != 2 || !cmp.Equal(r.Services[0].From, from) {
			t.Errorf("services %+v, want two with %v", r.Services, from)
		}
	}
}

// column is who reaches one endpoint.
func column(rows []string, n int) string {
	var s strings.Builder
	for _, row := range rows {
		s.WriteByte(row[n])
	}
	return s.String()
}

func TestRunPrintsMatricesAndRulesets(t *testing.T) {
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, shop), "--ruleset", "--probe", "udp:53,tcp:8080", "--host", "198.51.100.9")...)
	if status != 0 {
		t.Fatalf("exit status %d\n%s\n%s", status, out, stderr)
	}
	for _, part := range []string{"# node machine\ntable inet podwall {", "udp:53: ", "tcp:8080: ", "3 shop/web (machine)", "4 198.51.100.9 (outside)",
		"Service shop/web, tcp 10.96.0.10:80", "every verdict is what the policies say"} {
		if !strings.Contains(out, part) {
			t.Errorf("the output does not say %q:\n%s", part, out)
		}
	}
}

func TestRunNeedsPods(t *testing.T) {
	status, _, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, "kind: Namespace\napiVersion: v1\nmetadata: {name: x}\n"))...)
	if status != statusUsage || !strings.Contains(stderr, "Pods are needed, or workloads") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

func TestRunSaysWhichFileIsBrokenAndGoesOn(t *testing.T) {
	dir := manifests(t, shop)
	if err := os.WriteFile(filepath.Join(dir, "broken.yaml"), []byte("kind: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", dir, "-o", "json")...)
	if status != statusNotWritten || !strings.Contains(stderr, "broken.yaml:") {
		t.Errorf("exit status %d\n%s\n%s", status, out, stderr)
	}
	var r runReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Diagnostics) != 1 || r.Diagnostics[0].Kind != "File" {
		t.Errorf("%v, diagnostics %v", err, r.Diagnostics)
	}
}

// inOneFile is a cluster in every form that one file can have it: a typed list, a
// JSON stream behind it, and documents that end with dots.
const inOneFile = `apiVersion: v1
kind: PodList
items:
- metadata: {name: a, namespace: x, labels: {app: a}}
- metadata: {name: b, namespace: x, labels: {app: b}}
---
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny-a", "namespace": "x"},
 "spec": {"podSelector": {"matchLabels": {"app": "a"}}}}
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c", "namespace": "x"}}
...
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
items:
- metadata: {name: deny-b, namespace: x}
  spec: {podSelector: {matchLabels: {app: b}}}
`

func TestRunReadsWhatTheAgentReads(t *testing.T) {
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, inOneFile), "-o", "json", "--probe", "tcp:80")...)
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d\n%s\n%s", status, out, stderr)
	}
	var r runReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	// x/a, x/b, x/c and two hosts outside, of which one has IPv4.
	before, after := strings.Join(r.Probes[0].Before, " "), strings.Join(r.Probes[0].After, " ")
	if before != "-111- 1-11- 11-1- 111-- -----" || after != "-011- 0-11- 00-1- 001-- -----" {
		t.Errorf("endpoints %v\nbefore %s\nafter  %s", r.Endpoints, before, after)
	}
}

// TestWhatIsNotEnforcedAsWrittenHasAnExitStatus: scripts must not take a policy
// that nobody enforces for one that is in force.
func TestWhatIsNotEnforcedAsWrittenHasAnExitStatus(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {nodeName: node1}\n---\n"
	for name, text := range map[string]string{
		"a policy with a number as a label": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, labels: {v: 1}}\n",
		"a misspelt kind":                   "apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\nmetadata: {name: p}\n",
		"a policy of another project":       "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n",
	} {
		dir := manifests(t, pod)
		if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, stderr := commandLine(t, "ruleset", "-f", dir, "--node", "node1")
		if status != statusNotWritten || stderr == "" {
			t.Errorf("%s: exit status %d, %s", name, status, stderr)
		}
	}
}

// crowded has a policy with an address at the end of every subnet, two workloads and a pod
// that want one name, and a workload that cannot be read.
const crowded = shop + `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: edge, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 255.255.255.255/32}}]}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: job, namespace: shop}, spec: {template: &pod {metadata: {labels: {app: job}}, spec: {containers: [{name: c, image: i}]}}}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: job, namespace: shop}, spec: {jobTemplate: {spec: {template: *pod}}}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: bad}, spec: {template: {spec: {containers: [{name: c, image: i, ports: [{containerPort: "80"}]}]}}}}
- {apiVersion: v1, kind: Pod, metadata: {name: job-1, namespace: shop}, spec: {containers: [{name: c, image: x}]}}
`

func TestRunTriesAllThatCanBeRead(t *testing.T) {
	status, out, stderr := commandLine(t, withAgentFlag("run", "-f", manifests(t, crowded), "--wiring", "bridge", "--ruleset",
		"--probe", "tcp:8080")...)
	if status != statusNotWritten {
		t.Errorf("exit status %d\n%s\n%s", status, out, stderr)
	}
	for _, part := range []string{"table bridge podwall {", "hook prerouting priority -190", "every verdict is what the policies say",
		"Left out: 1 Deployment without a template of pods that can be read: default/bad", "shop/job-0 ×2 (machine): job-0, job-2"} {
		if !strings.Contains(out, part) {
			t.Errorf("the output does not say %q:\n%s", part, out)
		}
	}
	if !strings.Contains(stderr, "error: Deployment default/bad: no pods are made of it: ") || !strings.Contains(stderr, "containerPort") {
		t.Errorf("nothing is said of the workload that cannot be read:\n%s", stderr)
	}
}

func TestNamesOfNodesDoNotReachTheTerminalRaw(t *testing.T) {
	const name = "a\x1b[2J\ntable inet other {"
	var out strings.Builder
	r := &run{streams: Streams{Out: &out}, wiring: "routed", bedFlags: bedFlags{datapath: "nat"}}
	r.printRulesets(&plan{nodes: []string{name}, snap: &cluster.Snapshot{}})
	if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\ntable inet other") {
		t.Errorf("run --ruleset prints %q", out.String())
	}
	pod := "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: \"a\\e[2Jb\"}}"
	if status, _, stderr := commandLine(t, "ruleset", "-f", manifests(t, pod)); status != statusUsage || strings.Contains(stderr, "\x1b") {
		t.Errorf("ruleset: exit status %d, %q", status, stderr)
	}
}
