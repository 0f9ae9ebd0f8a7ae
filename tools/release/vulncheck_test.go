// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// database writes a vulnerability database in which a package of the standard
// library is vulnerable, or none. It returns its address.
func database(t *testing.T, vulnerable string) string {
	t.Helper()
	const id, date = "GO-2026-0001", "2026-01-01T00:00:00Z"
	files := map[string]any{"index/db.json": object{"modified": date}, "index/modules.json": []object{}, "index/vulns.json": []object{}}
	if vulnerable != "" {
		entry := object{"id": id, "modified": date}
		files["index/modules.json"] = []object{{"path": "stdlib", "vulns": []object{entry}}}
		files["index/vulns.json"] = []object{entry}
		files["ID/"+id+".json"] = object{"schema_version": "1.3.1", "id": id, "modified": date, "published": date, "summary": "made up",
			"database_specific": object{"url": "https://example.org/" + id},
			"affected": []object{{"package": object{"name": "stdlib", "ecosystem": "Go"},
				"ranges":             []object{{"type": "SEMVER", "events": []object{{"introduced": "0"}}}},
				"ecosystem_specific": object{"imports": []object{{"path": vulnerable}}}}}}
	}
	dir := t.TempDir()
	for name, value := range files {
		text, err := json.Marshal(value)
		check(t, err)
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	return "file://" + dir
}

// That nobody looked is never taken for that nothing was found.
func TestVulncheckSaysWhatItKnows(t *testing.T) {
	for _, tt := range []struct {
		name, database string
		status         int
		says           string
	}{
		{"nothing is known", database(t, ""), 0, "No vulnerabilities found"},
		{"something is", database(t, "time"), 1, "GO-2026-0001"},
		{"there is no database", "file:///nonexistent", 2, "NOT CHECKED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "../../hack/vulncheck", "./internal/source/feed")
			cmd.Env = append(os.Environ(), "GOVULNDB="+tt.database)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.status || !strings.Contains(string(out), tt.says) {
				t.Errorf("status %d, want %d and %q:\n%s", got, tt.status, tt.says, out)
			}
		})
	}
}
