// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"strings"
	"testing"
)

// The status names pods that only audit mode leaves open, and counts the others.
func TestTheStatusNamesAuditedPods(t *testing.T) {
	o := New(NewRegistry(), Info{})
	o.Record(Pass{AuditedPods: 5, AuditedNames: []string{"a/x", "b/y"}})
	if _, body := ask(t, o, "/statusz"); !strings.Contains(strings.Join(strings.Fields(body), ""), `"auditedNames":["a/x","b/y"]`) {
		t.Errorf("status:\n%s", body)
	}
	if _, body := ask(t, o, "/statusz?format=text"); !strings.Contains(body, "a/x, b/y and 3 more\n") {
		t.Errorf("text:\n%s", body)
	}
}
