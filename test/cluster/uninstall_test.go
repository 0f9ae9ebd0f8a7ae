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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// uninstall switches the start gate on, so that there is more to put back, then does
// what helm does when it uninstalls, and looks at the node.
func uninstall(t *testing.T, c *cluster.Cluster, before map[string]string) {
	t.Helper()
	ctx := t.Context()
	apply := func(text string) {
		t.Helper()
		_, err := c.Kubectl(ctx, text, "apply", "-f", "-")
		check(t, err)
	}
	apply(read(t, "test/privilege/testdata/gate.yaml"))
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
	hooks := strings.Split(read(t, "tools/chart/testdata/hooks.golden.yaml"), "\n---\n")
	for _, d := range hooks {
		if strings.Contains(d, "\nkind: ") && !strings.Contains(d, "kind: Job") && !strings.Contains(d, "kind: DaemonSet") {
			apply(d)
		}
	}
	job := func(name string) {
		t.Helper()
		for _, d := range hooks {
			if strings.Contains(d, "kind: Job") && strings.Contains(d, "name: podwall-"+name+"\n") {
				apply(d)
			}
		}
		check(t, cluster.Await(ctx, "the Job "+name, patience, func(ctx context.Context) error { return done(ctx, c, "podwall-"+name) }))
	}
	// As helm marks what it installs. Without it the Job does nothing.
	_, err := c.Kubectl(ctx, "", "annotate", "daemonset", "podwall", "-n", "podwall-system", "meta.helm.sh/release-name=podwall")
	check(t, err)
	job("stop-agents")
	apply(read(t, "deploy/uninstall.yaml"))
	job("await-nodes")
	if diff := cmp.Diff(before, nodeState(t, c)); diff != "" {
		t.Errorf("podwall left something behind (-before +after):\n%s", diff)
	}
}

// patience is how long a step may take on a busy machine.
const patience = 4 * time.Minute

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	check(t, err)
	return string(text)
}

// done says why a Job has not succeeded; nil if it has.
func done(ctx context.Context, c *cluster.Cluster, name string) error {
	job, err := c.Client().BatchV1().Jobs("podwall-system").Get(ctx, name, metav1.GetOptions{})
	if err != nil || job.Status.Succeeded > 0 {
		return err
	}
	pods, _ := c.Kubectl(ctx, "", "get", "pods", "-n", "podwall-system", "-o", "wide") // for the reader only
	log, _ := c.Kubectl(ctx, "", "logs", "-n", "podwall-system", "job/"+name)
	return fmt.Errorf("it has not succeeded:\n%s\n%s", pods, log)
}
