// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

const workloads = `apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {replicas: 5, template: &pod {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}}
- {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {replicas: 1, template: *pod}}
- {apiVersion: apps/v1, kind: DaemonSet, metadata: {name: log, namespace: shop}, spec: {template: *pod}}
- {apiVersion: batch/v1, kind: Job, metadata: {name: once, namespace: shop}, spec: {template: *pod}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: night, namespace: shop}, spec: {jobTemplate: {spec: {template: *pod}}}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: none, namespace: shop}, spec: {replicas: 0, template: *pod}}
- {apiVersion: example.org/v1, kind: Deployment, metadata: {name: other, namespace: shop}, spec: {template: *pod}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}}
- {apiVersion: v1, kind: Node, metadata: {name: n2}}
`

// What makes pods in a cluster has pods in the lab: as few as show what policies do.
func TestWorkloadsGetPods(t *testing.T) {
	in, err := readInput(manifest.From{Paths: []string{"-"}, Text: []byte(workloads)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range in.pods {
		got = append(got, p.Namespace+"/"+p.Name+" "+p.Spec.NodeName+" app="+p.Labels["app"])
	}
	want := []string{"shop/web-0  app=web", "shop/web-1  app=web", "default/db-0  app=web", "shop/log-0 n1 app=web", "shop/log-1 n2 app=web",
		"shop/once-0  app=web", "shop/night-0  app=web"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	said := strings.Join(in.invented, "\n")
	for _, part := range []string{"Deployment shop/web: invented the pods web-0, web-1 instead of 5", "StatefulSet default/db: invented the pods db-0\n",
		"Deployment shop/none: no pods, since it wants none"} {
		if !strings.Contains(said, part) {
			t.Errorf("said is\n%s\nwithout %q", said, part)
		}
	}
	if _, err := readInput(manifest.From{Paths: []string{"-"}, Text: []byte("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {}}")}); err == nil ||
		!strings.Contains(err.Error(), "Deployment") || !strings.Contains(err.Error(), "template") {
		t.Errorf("without a template: %v", err)
	}
}

func TestRunTakesWorkloadsFromTheStandardInput(t *testing.T) {
	var out, errs strings.Builder
	args := withAgentFlag("run", "-f", "-", "--probe", "tcp:80")
	if status := Run(t.Context(), "test", args, Streams{In: strings.NewReader(workloads), Out: &out, Err: &errs}); status != 0 {
		t.Fatalf("exit status %d\n%s%s", status, &out, &errs)
	}
	if !strings.Contains(out.String(), "shop/log-0 ×3 (n1): log-0, night-0, web-0") ||
		strings.Contains(errs.String(), "workloads are not used") ||
		!strings.Contains(errs.String(), "instead of 5") {
		t.Errorf("answer\n%s\nand\n%s", &out, &errs)
	}
}

// A cluster has the workload, what it owns and the pods.
const owned = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 2, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: a, controller: true}]}
spec: {replicas: 2, template: {metadata: {labels: {app: web, hash: "1"}}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1-x
  labels: {app: web, hash: "1"}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: b, controller: true}]
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: other}, spec: {template: {metadata: {labels: {app: other}}}}}
`

func TestPodsThatAreThereAreNotInvented(t *testing.T) {
	in, err := readInput(manifest.From{Paths: []string{"-"}, Text: []byte(owned)})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range in.pods {
		names = append(names, p.Name)
	}
	want := []string{"Deployment default/web: its pods are in the input",
		"Deployment default/other: invented the pods other-0"}
	if !cmp.Equal(names, []string{"web-1-x", "other-0"}) || !cmp.Equal(in.invented, want) {
		t.Errorf("pods %v, said %q", names, in.invented)
	}
}

// Objects of different kinds may have one name; their pods may not.
func TestInventedPodsHaveNamesOfTheirOwn(t *testing.T) {
	const text = `apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web}, spec: {replicas: 2, template: &pod {metadata: {labels: {app: web}}}}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: web}, spec: {jobTemplate: {spec: {template: *pod}}}}
- {apiVersion: v1, kind: Pod, metadata: {name: web-0}}
`
	in, err := readInput(manifest.From{Paths: []string{"-"}, Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range in.pods {
		names = append(names, p.Name)
	}
	want := []string{"StatefulSet default/web: invented the pods web-1, web-2", "CronJob default/web: invented the pods web-3"}
	if !cmp.Equal(names, []string{"web-0", "web-1", "web-2", "web-3"}) || !cmp.Equal(in.invented, want) {
		t.Errorf("pods %v, said %q", names, in.invented)
	}
}

// What is found in the manifests of the lab is printed where the user's had no such finding.
func TestFindingsAboutInventedPodsArePrinted(t *testing.T) {
	of := func(kind, name, message string) cluster.Diagnostic {
		return cluster.Diagnostic{Severity: cluster.Warning, Kind: kind, Object: cluster.Key{Name: name}, Field: "f", Message: message}
	}
	user := []cluster.Diagnostic{of("NetworkPolicy", "a", "in file x")}
	lab := []cluster.Diagnostic{of("NetworkPolicy", "a", "in cluster.yaml"), of("Pod", "web-0", "a label")}
	if diff := cmp.Diff([]cluster.Diagnostic{lab[1]}, newIn(lab, user)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}
