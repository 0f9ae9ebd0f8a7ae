// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The agent that the installed entry names is told, and a failure is printed.
func TestUninstallTellsTheAgentOfTheInstalledEntry(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	agent, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	heard := make(chan string, 1)
	go func() {
		conn, err := agent.Accept()
		if err != nil {
			heard <- err.Error()
			return
		}
		line, _ := bufio.NewReader(conn).ReadString('\n')
		_ = conn.Close()
		heard <- line
	}()
	conf := `{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}, {"type": "podwall-gate", "socket": "` + socket + `"}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-x.conflist"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	args := []string{"uninstall", "--conf-dir", dir, "--bin-dir", dir, "--cache-dir", dir}
	if status := run(t.Context(), args, &out, &errs); status != 0 {
		t.Fatalf("status %d\n%s%s", status, &out, &errs)
	}
	_ = agent.Close()
	if got := <-heard; !strings.Contains(got, `"off"`) {
		t.Errorf("the agent heard %q", got)
	}
	if !strings.Contains(out.String(), "no agent was notified on "+socket) {
		t.Errorf("nothing is said of the answer that did not come:\n%s", &out)
	}
}
