// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// Only the exact word audits; what is no mode is reported, and enforces.
func TestTheModeOfAPolicy(t *testing.T) {
	for text, want := range map[string]struct {
		audit    bool
		findings int
	}{
		"audit": {true, 0}, "enforce": {false, 0}, "": {false, 1}, "Audit": {false, 1}, "audit ": {false, 1},
		"off": {false, 1}, strings.Repeat("a", 1000): {false, 1},
	} {
		p, found := Policy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web",
			Annotations: map[string]string{cluster.ModeAnnotation: text}}})
		if p.Audit != want.audit || len(found) != want.findings {
			t.Errorf("%.20q: audit %t, findings %v", text, p.Audit, found)
		}
		for _, d := range found {
			if d.Field != "metadata.annotations[podwall.io/mode]" || d.Cure == "" || len(d.Message) > 100 {
				t.Errorf("%.20q: %+v", text, d)
			}
		}
	}
	if p, found := Policy(&networkingv1.NetworkPolicy{}); p.OwnMode || p.Audit || len(found) != 0 {
		t.Errorf("without the annotation: audit %t, findings %v", p.Audit, found)
	}
}

// Of a namespace only the words count; whatever else is there is kept to be reported, and short.
func TestModeOfANamespace(t *testing.T) {
	if n := Namespace(&corev1.Namespace{}); n.Mode != "" {
		t.Errorf("without the annotation: %q", n.Mode)
	}
	for text, want := range map[string]string{"audit": "audit", "enforce": "enforce", "": `""`, "Audit": `"Audit"`,
		strings.Repeat("x", 100): `"` + strings.Repeat("x", 40) + `"`} {
		n := Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{cluster.ModeAnnotation: text}}})
		if n.Mode != want {
			t.Errorf("%.20q is %q, want %q", text, n.Mode, want)
		}
	}
}
