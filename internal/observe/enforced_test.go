// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// What is asked of all nodes has the reasons, and is small whatever they are.
func TestWhatIsAskedOfAllNodesIsBounded(t *testing.T) {
	o := New(NewRegistry(), Info{Node: "n1", Version: "v1"})
	for i := range 100 {
		o.SetProblem(Problem{Subject: fmt.Sprintf("pod %03d", i), Text: strings.Repeat("é", 1000), Blocking: i%2 == 0})
	}
	o.TellVersions(func(uint64) (string, bool) { return "77", true })
	if got := o.Status().PolicyVersion; got != "" {
		t.Errorf("before the first pass the version is %q", got)
	}
	o.SetMissing(nil)
	o.Record(Pass{Revision: 1, PolicyVersion: "70", Pods: 3})
	answer := httptest.NewRecorder()
	o.Pages()["/enforced"].ServeHTTP(answer, httptest.NewRequest("GET", "/enforced", nil))
	text := answer.Body.String()
	for _, part := range []string{`"schema":"podwall.enforced/v1"`, `"node":"n1"`, `"version":"v1"`, `"policyVersion":"77"`,
		`"ready":false`, `"pod 000: éé`, `"pod 001: éé`, `"pods":3`} {
		if !strings.Contains(text, part) {
			t.Errorf("without %s:\n%s", part, text)
		}
	}
	o.Pages()["/metrics"].ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(answer.Body.String(), "\npodwall_policy_version 77\n") {
		t.Error("the metric is not 77")
	}
	if len(text) > 32<<10 || strings.Count(text, "…") != 2*maxReasons {
		t.Errorf("%d bytes, %d texts are cut", len(text), strings.Count(text, "…"))
	}
}
