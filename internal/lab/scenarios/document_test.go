// SPDX-License-Identifier: Apache-2.0

package scenarios

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/design/services.md names scenarios and tests that exist, and some of each file.
func TestThePageOfServicesNamesWhatExists(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/design/services.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(raw)), " ") // a name may be broken between lines
	_, list, err := Read(os.DirFS("../../../testdata/services"))
	if err != nil {
		t.Fatal(err)
	}
	exists, files := map[string]bool{}, map[string]int{}
	for _, s := range list {
		exists[s.File+` "`+s.Name+`"`], files[s.File] = true, 0
	}
	for _, m := range regexp.MustCompile(`([a-z-]+) "([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if _, known := files[m[1]]; !known {
			continue // an ordinary quotation
		}
		if files[m[1]]++; !exists[m[0]] {
			t.Errorf("there is no scenario %s", m[0])
		}
	}
	for f, n := range files {
		if n == 0 {
			t.Errorf("no scenario of %s is named", f)
		}
	}
	tests := ""
	for _, dir := range []string{"../../proxy/service", "../../cluster/convert"} {
		names, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			tests += string(text)
		}
	}
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(page, -1) {
		if !strings.Contains(tests, "func "+name+"(") {
			t.Errorf("no test is called %s", name)
		}
	}
}
