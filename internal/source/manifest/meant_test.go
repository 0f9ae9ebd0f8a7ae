// SPDX-License-Identifier: Apache-2.0

package manifest

import "testing"

func TestAMisspeltFieldIsProposedWhereItStands(t *testing.T) {
	for path, want := range map[string]string{
		"specs":                                      "spec",
		"spec.podselector":                           "podSelector",
		"spec.policyType":                            "policyTypes",
		"spec.ingres":                                "ingress",
		"spec.egress[12].form":                       "",
		"spec.ingress[0].form":                       "from",
		"spec.ingress[0].port":                       "ports",
		"spec.ingress[0].to":                         "",
		"spec.egress[0].too":                         "to",
		"spec.from":                                  "",
		"spec.ingress[0].from[1].x":                  "",
		"spec.ingress[0].from[1].podSelectors":       "podSelector",
		"spec.ingress[0].from[1].namespaceselector":  "namespaceSelector",
		"spec.ingress[0].from[2].podSelector.app":    "",
		"spec.podSelector.matchLabel":                "matchLabels",
		"spec.podSelector.matchExpressions[0].value": "values",
		"spec.podSelector.matchLabels.app":           "",
		"spec.ingress[0].from[0].ipBlock.cidrs":      "cidr",
		"spec.ingress[0].ports[0].endport":           "endPort",
		"spec.ingress[0].ports[0].protocol.x":        "",
		"spec.nothing.like.this":                     "",
		"":                                           "",
		"metadata.annotation":                        "annotations",
		"spec.ingress[0].from[1].namespaceSelector.matchExpressions[0].Key": "key",
	} {
		if got := meantField(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
