// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/kubeapi"
)

// withPrograms adds what `make kubeapi` builds, and looks for what kube-proxy
// calls.
func withPrograms(t *testing.T) Config {
	t.Helper()
	cfg := config(t)
	var err error
	if cfg.KubeAPI, err = kubeapi.Program(); err == nil {
		cfg.KubeProxy, err = exec.LookPath(filepath.Join(filepath.Dir(cfg.KubeAPI), "kube-proxy"))
	}
	if err == nil {
		_, err = exec.LookPath("nft")
	}
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
	return cfg
}

// A peer that adds a hook for every packet and closes the pod that the policies
// close. It takes that away when it is told to end, in the way of real ones.
const hook = `
	trap 'nft delete table ip peer; exit 0' TERM
	nft add table ip peer
	nft 'add chain ip peer c { type filter hook forward priority 0; }'
	nft add rule ip peer c ip daddr 10.244.1.7 drop
	echo "$NODE_NAME $(grep -c server: "$KUBECONFIG")" >> RECORD
	sleep 100 & wait`

func TestPeersAreMeasuredBesideTheRealKubeProxy(t *testing.T) {
	cfg := withPrograms(t)
	record := filepath.Join(t.TempDir(), "record")
	cfg.Groups = []string{peersGroup}
	cfg.Peers = []Peer{{Name: "hook", Command: strings.ReplaceAll(hook, "RECORD", record), Settle: time.Second}}
	var r bench.Report
	if err := Run(t.Context(), cfg, &r); err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, row := range r.Rows {
		if strings.HasPrefix(row.Section, "beside peers: ") {
			rows[row.Name]++
		}
	}
	for _, name := range []string{noAgent, again, "podwall", "no agent, other nodes", "hook"} {
		if want := len(everything()); rows[name] != want {
			t.Errorf("%q has %d rows, want %d; all are %v", name, rows[name], want, rows)
		}
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	// It is started in both nodes for each round and for the one that warms up.
	for _, want := range []string{"node1 1", "node2 1"} {
		if n := strings.Count(string(text), want); n != cfg.Rounds+1 {
			t.Errorf("%q stands %d times in %q, want %d", want, n, text, cfg.Rounds+1)
		}
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "real kube-proxy, nftables mode: beside peers.") {
		t.Errorf("notes: %s", notes)
	}
}

func TestAPeerThatEndsIsAnError(t *testing.T) {
	cfg := withPrograms(t)
	cfg.KubeProxy = ""
	cfg.Groups = []string{peersGroup}
	cfg.Peers = []Peer{{Name: "gone", Command: "echo cannot go on; exit 1", Settle: 100 * time.Millisecond}}
	var r bench.Report
	if err := Run(t.Context(), cfg, &r); err == nil || !strings.Contains(err.Error(), "cannot go on") {
		t.Errorf("error %v, want what the peer said", err)
	}
}

func TestTheRulesOfKubeProxyStayAndTheAgentIsBesideThem(t *testing.T) {
	run := &runner{cfg: withPrograms(t)}
	defer func() {
		if err := run.close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := run.stage(t.Context(), group{proxied: true}, setting("", small()).plan)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, n := range s.nodes {
		for _, table := range []string{"kube-proxy", tableName} {
			hooks, err := n.tables.Hooks(table)
			if err != nil {
				t.Fatal(err)
			}
			if len(hooks) == 0 {
				t.Errorf("%s: no packet meets table %s", n.Name, table)
			}
		}
		if hooks, err := n.tables.Hooks("lab-services"); err != nil || len(hooks) > 0 {
			t.Errorf("%s: the stand-in is there too: %v (%v)", n.Name, hooks, err)
		}
	}
}
