// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// The files of deploy/, and one in which every value of the chart is set.
const (
	plainFile   = "../../deploy/podwall.yaml"
	tkeFile     = "../../deploy/tke/podwall.yaml"
	takeOver    = "../../deploy/tke/kube-router-firewall-daemonset.yaml"
	everyOption = "../../tools/chart/testdata/all.golden.yaml"
	cleanFile   = "../../deploy/uninstall.yaml"
	hooksFile   = "../../tools/chart/testdata/hooks.golden.yaml"     // what helm makes when it uninstalls
	everyHook   = "../../tools/chart/testdata/all.hooks.golden.yaml" // the same with every value of the chart set
	seedFile    = "testdata/seed-daemonset.yaml"                     // of Tencent's document, as it stands there
)

// document is one object of a file.
type document struct {
	metav1.PartialObjectMetadata
	text []byte
}

func documents(t *testing.T, file string) []document {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return split(t, string(data))
}

func split(t *testing.T, data string) (list []document) {
	t.Helper()
	for _, text := range strings.Split("\n"+data, "\n---\n") {
		d := document{text: []byte(text)}
		if err := yaml.Unmarshal(d.text, &d.PartialObjectMetadata); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if d.Kind != "" {
			list = append(list, d)
		}
	}
	return list
}

// object decodes the one object of a kind.
func object[T any](t *testing.T, file, kind string) (o T) {
	t.Helper()
	found := 0
	for _, d := range documents(t, file) {
		if d.Kind == kind {
			found++
			if err := yaml.Unmarshal(d.text, &o); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	if found != 1 {
		t.Fatalf("%s has %d objects %s", file, found, kind)
	}
	return o
}

func daemonSet(t *testing.T, file string) appsv1.DaemonSet {
	t.Helper()
	return object[appsv1.DaemonSet](t, file, "DaemonSet")
}
