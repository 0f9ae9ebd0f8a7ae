// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/kubeapi"
)

// testedProxy returns the kube-proxy of `make kubeapi`.
func testedProxy() (string, error) {
	proxy := cmp.Or(os.Getenv("PODWALL_KUBE_PROXY"), "../../../bin/kube-proxy")
	_, err := os.Stat(proxy)
	return proxy, err
}

// webPrograms returns the flags that name what `bench web` needs. What is
// missing skips the test, or fails it in CI.
func webPrograms(t *testing.T) []string {
	t.Helper()
	server, err := kubeapi.Program()
	proxy, proxyErr := testedProxy()
	err = errors.Join(err, proxyErr)
	for _, name := range []string{"nginx", "ab", "nft"} {
		_, lookErr := findProgram(name, "")
		err = errors.Join(err, lookErr)
	}
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--kubeapi", server, "--kube-proxy", proxy}
}

// abThatGetsStuck makes the first run of ab end as a lost connection makes it end, with
// one to the Service that stays open a while.
func abThatGetsStuck(t *testing.T) {
	t.Helper()
	ab, err := findProgram("ab", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/bash\nmkdir " + dir + "/done 2>/dev/null || exec " + ab + ` "$@"
exec 3<>/dev/tcp/10.96.0.10/80
sleep 5 >/dev/null 2>&1 &
echo 'apr_pollset_poll: The timeout specified has expired (70007)' >&2
exit 119
`
	if err := os.WriteFile(filepath.Join(dir, "ab"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// The first run of ab gets stuck: it is repeated, and the report says so. The peer is
// our own agent, started as a peer is: it must have taken all away when its turn ends,
// or the next turn fails.
func TestBenchWebMeasuresEverySettingAndWritesAWholeReport(t *testing.T) {
	flags := webPrograms(t)
	abThatGetsStuck(t)
	dir := t.TempDir()
	agent := os.Getenv(agentVariable) + " --gate-socket=" + dir + "/$NODE_NAME.sock"
	peer := "other agent=trap : TERM; " + agent + " --kubeconfig=$KUBECONFIG; " + agent + " --cleanup-config"
	args := append([]string{"bench", "web", "--quick", "-o", "json", "--out", dir, "--wiring", "bridge", "--peer", peer}, flags...)
	status, out, stderr := commandLine(t, withAgentFlag(args...)...)
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	var r bench.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	checkWebRows(t, r.Rows)
	if len(r.Plots) != 2 || r.Plots[0].Name != "web-40" || r.Plots[1].Name != "web-80" ||
		len(r.Plots[0].Lines) != 5 || len(r.Plots[0].Lines[0].Points) != 2 {
		t.Errorf("plots %+v, want two with a line for each of 5 settings, and 2 points", r.Plots)
	}
	if text := strings.Join(r.Notes, " "); strings.Contains(text, "did not enforce") || !strings.Contains(text, "above 1 where something is lost") {
		t.Errorf("notes %q", r.Notes)
	}
	text := strings.Join(r.Notes, " ")
	if !strings.Contains(text, `With "no agent" a run of ab got no answer`) || !strings.Contains(text, "node1, state 3: tcp") {
		t.Errorf("notes %q, want that a run of ab got stuck, and its connection", r.Notes)
	}
	if want := "--peer='other agent=trap"; !strings.Contains(r.Command, want) {
		t.Errorf("command %q, want %q in it", r.Command, want)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "web.json"))
	if err != nil || string(kept) != out {
		t.Errorf("the kept report differs from the printed one (%v)", err)
	}
}

// checkWebRows wants for each of two numbers of pods: QPS and CPU at two
// concurrencies, and two sums; each with a row for each of five settings.
func checkWebRows(t *testing.T, rows []bench.Row) {
	t.Helper()
	settings := []string{"no agent", "no agent again", "podwall", "podwall, its own proxy", "other agent"}
	if want := 2 * (2 + 2 + 2) * len(settings); len(rows) != want {
		t.Fatalf("%d rows, want %d", len(rows), want)
	}
	for i, row := range rows {
		if want := settings[i%len(settings)]; row.Name != want {
			t.Errorf("row %d is of %q, want %q", i, row.Name, want)
		}
		if row.Value.Median <= 0 {
			t.Errorf("%s, %s: %v %s, want some", row.Section, row.Name, row.Value.Median, row.Unit)
		}
		if (row.Ratio == nil) != (row.Name == settings[0]) ||
			(row.Bar != nil) != (strings.HasPrefix(row.Name, "podwall") && strings.HasPrefix(row.Section, "CPU of nginx") &&
				strings.HasSuffix(row.Section, "all requests")) {
			t.Errorf("%s, %s: ratio %v, bar %v", row.Section, row.Name, row.Ratio, row.Bar)
		}
	}
	if !slices.ContainsFunc(rows, func(r bench.Row) bool { return r.Bar != nil }) {
		t.Error("no row has a bar")
	}
}

func TestBenchWebNamesThePackagesThatAreMissing(t *testing.T) {
	self, err := exec.LookPath(os.Getenv(agentVariable))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	b := benchWeb{}
	b.cfg.KubeAPI, b.cfg.KubeProxy = self, self
	err = b.findPrograms()
	// nginx is found without a PATH where it is installed.
	if err == nil || !strings.Contains(err.Error(), "ab is missing (Debian's package apache2-utils)") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with the missing package", err)
	}
}
