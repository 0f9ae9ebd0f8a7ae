// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/test/cluster"
)

// nodeState is what podwall may change of a node and has to put back: the files of
// CNI byte for byte, what lies in /run/podwall, settings of the network, and
// nftables tables with its name.
func nodeState(t *testing.T, c *cluster.Cluster) map[string]string {
	t.Helper()
	n := c.Nodes()[0]
	state := map[string]string{}
	for _, dir := range []string{"/etc/cni", "/opt/cni", "/run/podwall"} {
		err := filepath.WalkDir(n.File(dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() { // a directory may be a mount of the cleaner's
				return nil
			}
			name := dir + strings.TrimPrefix(path, n.File(dir))
			if err != nil || !d.Type().IsRegular() {
				state[name] = "is there"
				return err
			}
			text, err := os.ReadFile(path)
			state[name] = string(text)
			return err
		})
		check(t, err)
	}
	text, err := n.Run(t.Context(), "sysctl", "-a")
	check(t, err)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, " = ")
		mayChange := strings.HasSuffix(name, "_count") || strings.Contains(name, ".veth") || strings.Contains(name, "random")
		if strings.HasPrefix(name, "net.") && !mayChange {
			state[name] = value
		}
	}
	conn, err := ruleset.Open(n.Netns().FD())
	check(t, err)
	for _, table := range append(ruleset.Tables(), ruleset.OpenTable()) {
		there, err := conn.Of(table).Exists()
		check(t, err)
		state["table "+table.String()] = fmt.Sprint(there)
	}
	check(t, conn.Close())
	return state
}

// uninstall hands the installation to helm, which switches the start gate on, so that
// there is more to put back, then has helm uninstall it, and looks at the node.
func uninstall(t *testing.T, c *cluster.Cluster, k *console, before map[string]string) {
	t.Helper()
	ctx := t.Context()
	k.run("helm install podwall deploy/chart/podwall -n podwall-system --take-ownership --server-side=false " +
		"--set gate.enabled=true,uninstall.enabled=true")
	n := c.Nodes()[0]
	check(t, cluster.Await(ctx, "the start gate", patience, func(ctx context.Context) error {
		files, err := filepath.Glob(n.File("/etc/cni/net.d/*.podwall-original"))
		if len(files) > 0 || err != nil {
			return err
		}
		pods, _ := c.Kubectl(ctx, "", "describe", "pods", "-n", "podwall-system") // for the reader only
		return fmt.Errorf("it is not installed:\n%s", pods)
	}))
	changed := nodeState(t, c)
	if own := "table " + ruleset.Table().String(); changed[own] == before[own] || cmp.Equal(changed, before) {
		t.Error("podwall is installed, and the node is as before")
	}
	k.run("helm uninstall podwall -n podwall-system --timeout 4m")
	if diff := cmp.Diff(before, nodeState(t, c)); diff != "" {
		t.Errorf("podwall left something behind (-before +after):\n%s", diff)
	}
	left := k.run("kubectl get daemonsets,jobs,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings -A -o name " +
		"| grep podwall || true")
	if left != "" {
		t.Errorf("helm left objects of podwall:\n%s", left)
	}
}

// patience is how long a step may take on a busy machine.
const patience = 4 * time.Minute
