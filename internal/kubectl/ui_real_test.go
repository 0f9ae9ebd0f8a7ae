// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The page of a cluster shows what that of its objects does, and says that no agent is there.
func TestThePageOfAClusterIsThatOfItsObjects(t *testing.T) {
	s := liveServer(t)
	live, end := uiAt(t, "--kubeconfig", s.Kubeconfig)
	defer end()
	files, endFiles := uiAt(t, "-f", "testdata/cluster.yaml")
	defer endFiles()
	times := regexp.MustCompile(`,?"(read|version)":"[^"]*"`)
	for _, path := range []string{"/api/graph?port=tcp:8080", "/api/graph?open=shop", "/api/search?q=we", "/api/policies",
		"/api/explain?src=shop/client&dst=shop/web-6bd7-x1&port=tcp:8080", "/api/pairs?src=namespace:shop&dst=namespace:shop"} {
		status, got := live(path)
		_, want := files(path)
		if diff := cmp.Diff(times.ReplaceAllString(want, ""), times.ReplaceAllString(got, "")); diff != "" || status != http.StatusOK {
			t.Errorf("%s: status %d (-files +cluster)\n%s", path, status, diff)
		}
	}
	if _, text := live("/api/policies"); !regexp.MustCompile(`"version":"[0-9]+"`).MatchString(text) {
		t.Errorf("no version in %s", text)
	}
	if status, text := live("/api/status"); status != http.StatusUnprocessableEntity || !strings.Contains(text, "no agent runs") {
		t.Errorf("%d %s", status, text)
	}
	var v flowsValue
	if status, text := live("/api/flows"); status != http.StatusOK || json.Unmarshal([]byte(text), &v) != nil ||
		!strings.Contains(v.Problem, "no agent runs") {
		t.Errorf("%d %s", status, text)
	}
	// Who may read nothing has no page.
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	if status, out, said := commandLine(t, "ui", "--kubeconfig", tenant); status != statusUsage || out != "" ||
		!strings.Contains(said, "cannot list") {
		t.Errorf("exit status %d, %q, %q", status, out, said)
	}
}
