// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"os"
	"strings"
	"testing"
)

func TestRunTakesWorkloadsFromTheStandardInput(t *testing.T) {
	in, err := os.Open("../../complete/testdata/workloads.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out, errs strings.Builder
	args := withAgentFlag("run", "-f", "-", "--probe", "tcp:80")
	if status := Run(t.Context(), "test", args, Streams{In: in, Out: &out, Err: &errs}); status != 0 {
		t.Fatalf("exit status %d\n%s%s", status, &out, &errs)
	}
	if !strings.Contains(out.String(), "shop/log-0 ×3 (n1): log-0, night-0, web-0") ||
		strings.Contains(errs.String(), "workloads are not used") ||
		!strings.Contains(errs.String(), "instead of 5") {
		t.Errorf("answer\n%s\nand\n%s", &out, &errs)
	}
}
