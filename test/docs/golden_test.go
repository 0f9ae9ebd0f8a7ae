// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// make golden runs the tests that write something with -update, and no other.
func TestMakeGoldenRunsGoldensOnly(t *testing.T) {
	makefile := read(t, "Makefile")
	pattern := regexp.MustCompile(`(?m)^GOLDENS := (.*)$`).FindStringSubmatch(makefile)
	recipe := regexp.MustCompile(`(?ms)^golden:.*?-update$`).FindString(makefile)
	if pattern == nil || !strings.Contains(recipe, "$(GOLDENS)") {
		t.Fatalf("make golden does not choose tests:\n%s", recipe)
	}
	chosen := regexp.MustCompile(strings.ReplaceAll(pattern[1], "$$", "$"))
	writes := regexp.MustCompile(`Golden\(t, |Golden\(t,|\*update|"update"|baseline\.`)
	count := 0
	for _, pkg := range regexp.MustCompile(`\./(internal/\S+)`).FindAllStringSubmatch(recipe, -1) {
		files, err := filepath.Glob(filepath.Join(root, pkg[1], "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pkg[1], err)
		}
		for _, f := range files {
			name := strings.TrimPrefix(filepath.ToSlash(f), root+"/")
			for _, part := range strings.Split(read(t, name), "\nfunc ")[1:] {
				test := regexp.MustCompile(`^Test\w+`).FindString(part)
				if test == "" || test == "TestMain" {
					continue
				}
				body, _, _ := strings.Cut(part, "\n}\n")
				if chosen.MatchString(test) {
					count++
				} else if writes.MatchString(body) {
					t.Errorf("%s: %s writes with -update, and make golden does not run it", name, test)
				}
			}
		}
	}
	if count < 8 || count > 16 {
		t.Errorf("make golden runs %d tests", count)
	}
}
