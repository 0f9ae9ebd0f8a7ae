// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestDatagramsAreReadFromTheKernelsTables(t *testing.T) {
	for table, want := range map[string]counts{
		"Ip: A B\nIp: 1 2\nUdp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: 10 2 99 98\n" +
			"UdpLite: InDatagrams NoPorts\nUdpLite: 7 7\n": {10, 2},
		"Ip6InReceives\t5\nUdp6InDatagrams  \t3\nUdp6NoPorts\t4\nUdp6InErrors 9\n": {3, 4},
		"": {},
	} {
		if got := countDatagrams(table); got != want {
			t.Errorf("%q: %+v, want %+v", table, got, want)
		}
	}
}

func TestTheManifestsOfScenariosAreYAML(t *testing.T) {
	for _, text := range []string{policies("shop"), webManifest("shop", "web", ""), webManifest("shop", "web", "plain"),
		shopManifest("shop")} {
		for _, document := range strings.Split(text, "\n---\n") {
			var object struct {
				Metadata struct{ Name, Namespace string }
			}
			if err := yaml.Unmarshal([]byte(document), &object); err != nil || object.Metadata.Namespace != "shop" || object.Metadata.Name == "" {
				t.Errorf("%v: it is of %+v:\n%s", err, object.Metadata, document)
			}
		}
	}
}
