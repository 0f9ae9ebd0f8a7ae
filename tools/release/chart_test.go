// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// What helm reads from the package is what it reads from the directory.
func TestTheChartIsPackaged(t *testing.T) {
	chart, err := loader.LoadDir("../../deploy/chart/podwall")
	check(t, err)
	packed, err := chartPackage(chart)
	check(t, err)
	again, err := chartPackage(chart)
	check(t, err)
	if !bytes.Equal(packed, again) {
		t.Error("the same chart packaged twice differs")
	}
	read, err := loader.LoadArchive(bytes.NewReader(packed))
	check(t, err)
	want := texts(chart)
	for name, text := range texts(read) {
		if want[name] != text {
			t.Errorf("%s is another in the package", name)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not in the package", name)
	}
	if read.Metadata.Version != chart.Metadata.Version || read.Metadata.AppVersion != chart.Metadata.AppVersion {
		t.Errorf("version %s of %s", read.Metadata.Version, read.Metadata.AppVersion)
	}
}

func texts(chart *chartv2.Chart) map[string]string {
	all := map[string]string{}
	for _, f := range chart.Raw {
		all[f.Name] = string(f.Data)
	}
	return all
}

func TestTheManifestsAreThere(t *testing.T) {
	chart, err := loader.LoadDir("../../deploy/chart/podwall")
	check(t, err)
	files, err := options{root: "../..", tag: chart.Metadata.AppVersion}.manifests()
	check(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.name)
	}
	want := []string{"podwall-" + chart.Metadata.Version + ".tgz", "podwall.yaml", "uninstall.yaml",
		"tke-podwall.yaml", "tke-kube-router-firewall-daemonset.yaml", "connectivity-check.sh"}
	if !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	if _, err := (options{root: "../..", tag: "9.9.9"}).manifests(); err == nil || !strings.Contains(err.Error(), "make deploy") {
		t.Errorf("with manifests of another tag: %v, want what to do", err)
	}
}
