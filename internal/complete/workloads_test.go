// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/manifest"
)

func read(t *testing.T, text string) *Input {
	t.Helper()
	in, err := Read(manifest.From{Paths: []string{"-"}, Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// What makes pods in a cluster has pods in the lab: as few as show what policies do.
func TestWorkloadsGetPods(t *testing.T) {
	workloads, err := os.ReadFile("testdata/workloads.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in := read(t, string(workloads))
	var got []string
	for _, p := range in.Pods {
		got = append(got, p.Namespace+"/"+p.Name+" "+p.Spec.NodeName+" app="+p.Labels["app"])
	}
	want := []string{"shop/web-0  app=web", "shop/web-1  app=web", "default/db-0  app=web", "shop/log-0 n1 app=web",
		"shop/log-1 n2 app=web",
		"shop/once-0  app=web", "shop/night-0  app=web"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	said := strings.Join(in.Invented, "\n")
	for _, part := range []string{"Deployment shop/web: invented the pods web-0, web-1 instead of 5",
		"StatefulSet default/db: invented the pods db-0\n",
		"Deployment shop/none: no pods, since it wants none"} {
		if !strings.Contains(said, part) {
			t.Errorf("said is\n%s\nwithout %q", said, part)
		}
	}
	if _, err := Read(manifest.From{Paths: []string{"-"},
		Text: []byte("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {}}")}); err == nil ||
		!strings.Contains(err.Error(), "Deployment") || !strings.Contains(err.Error(), "template") {
		t.Errorf("without a template: %v", err)
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
	in := read(t, owned)
	var names []string
	for _, p := range in.Pods {
		names = append(names, p.Name)
	}
	want := []string{"Deployment default/web: its pods are in the input",
		"Deployment default/other: invented the pods other-0"}
	if !cmp.Equal(names, []string{"web-1-x", "other-0"}) || !cmp.Equal(in.Invented, want) {
		t.Errorf("pods %v, said %q", names, in.Invented)
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
	in := read(t, text)
	var names []string
	for _, p := range in.Pods {
		names = append(names, p.Name)
	}
	want := []string{"StatefulSet default/web: invented the pods web-1, web-2", "CronJob default/web: invented the pods web-3"}
	if !cmp.Equal(names, []string{"web-0", "web-1", "web-2", "web-3"}) || !cmp.Equal(in.Invented, want) {
		t.Errorf("pods %v, said %q", names, in.Invented)
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

// The field is named as it stands in the object.
func TestAWorkloadOfTheWrongTypeNamesTheField(t *testing.T) {
	const pod = "\n---\n{apiVersion: v1, kind: Pod, metadata: {name: p}}"
	for text, want := range map[string]string{
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {template: x}}":                                            "spec.template is a string, want an object",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: x}}":                                            "spec.replicas is a string, want int",
		"{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {jobTemplate: {spec: {template: {spec: {containers: 5}}}}}}": "spec.jobTemplate.spec.template.spec.containers is a number, want a list",
	} {
		in := read(t, text+pod)
		if len(in.Found) != 1 || !strings.Contains(in.Found[0].Message, "no pods are made of it: "+want) {
			t.Errorf("%s: %v, want %s", text, in.Found, want)
		}
	}
}
