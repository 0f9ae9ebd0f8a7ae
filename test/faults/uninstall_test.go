// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A persistent cleanup removes what is added again: closed rules loaded by a start gate that is still in a
// runtime's memory. With an agent on the node it fails and changes nothing.
func TestACleanupThatStays(t *testing.T) {
	needs(t, "nft")
	eachWiring(t, func(t *testing.T, w *world) {
		a := w.enforced(w.start())
		want := w.tables()
		socket := filepath.Join(t.TempDir(), "podwall", "gate.sock")
		if text := w.once(4, "--cleanup-config"); !strings.Contains(text, "delete the DaemonSet") {
			t.Errorf("with an agent the cleanup says %q", text)
		}
		w.same("with an agent", want)
		a.Stop()
		leaveSocket(t, socket)
		p := start(t, w.node(), agentProgram(), "--hostname-override=node1", "--gate-socket="+socket, "--cleanup-config",
			"--wait-after-cleanup")
		gone := func() bool { return !strings.Contains(w.ruleset(), "podwall") }
		await(t, "cleanup", gone)
		await(t, "removal of the socket", func() bool {
			_, err := os.Stat(filepath.Dir(socket))
			return os.IsNotExist(err)
		})
		w.nft("add table inet podwall")
		await(t, "second cleanup", gone)
		if !strings.Contains(p.Log(), "podwall-gate uninstall") {
			t.Errorf("the log does not say where the rules came from:\n%s", p.Log())
		}
		p.Stop()
	})
}

// leaveSocket leaves the socket of a killed agent.
func leaveSocket(t *testing.T, name string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(name), 0o755))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	check(t, err)
	l.SetUnlinkOnClose(false)
	check(t, l.Close())
}
