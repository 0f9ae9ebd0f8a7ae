// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func TestBadInputIsOneClearLine(t *testing.T) {
	tests := []struct {
		line, want string
	}{
		{"frobnicate", `unknown command "frobnicate"`},
		{"explain -h", `unknown command "explain"`},
		{"help explain", `unknown command "explain"`},
		{"bench everything --help", `unknown command "everything"; podwall-lab bench --help lists the commands`},
		{"rulset -f x", "did you mean ruleset?"},
		{"demo --wiring bridge,tubes", `unknown wiring "tubes", want one of routed, bridge`},
		{"demo -o yaml", `unknown output "yaml"`},
		{"demo --datapath sideways", `unknown datapath "sideways"`},
		{"demo --agent /does/not/exist", "looking for podwall-agent"},
		{"demo --wiring cni-ptp --cni-bin=", "name their directory with --cni-bin"},
		{"run", "no manifests given"},
		{"run ./dir", `unexpected argument "./dir"; the form is: podwall-lab run -f PATH [flags]`},
		{"run -f /does/not/exist", "reading manifests"},
		{"run -f . --probe tcp:http", `unknown port "tcp:http"`},
		{"run -f . --host nowhere", `unknown host "nowhere"`},
		{"run -f . --ruleset -o json", "--ruleset prints text"},
		{"check", "requires at least 1 arg"},
		{"check /does/not/exist", "opening cases"},
		{"check --every 0 x", "--every is 0"},
		{"check --backend hearsay ../../../testdata/cases/recipes.jsonl", `unknown backend "hearsay"`},
		{"check --wiring tubes ../../../testdata/cases/recipes.jsonl", `unknown wiring "tubes"`},
		{"bench packets --rounds 0", "--rounds is 0"},
		{"bench packets -o yaml", `unknown output "yaml"`},
		{"bench packets --wiring tubes", `unknown wiring "tubes"`},
		{"bench packets --peer nobody", `peer "nobody", want NAME=COMMAND`},
		{"bench packets --peer a=b", "peers need an API server"},
		{"bench packets peers", "there are no peers to measure"},
		{"bench packets everything", `unknown group "everything", want some of pods, datapath`},
		{"bench web -o yaml", `unknown output "yaml"`},
		{"bench web --pods 1500", "1500 pods: the numbers must grow, be multiples of the 1000 services"},
		{"bench web --pods 4000,2000", "2000 pods: the numbers must grow"},
		{"bench web --concurrency 5000", "concurrency 5000: want 1 to 1000"},
		{"bench web --wiring cni-ptp", `wiring "cni-ptp" is not measured`},
		{"bench web --peer other", `peer "other": want NAME=COMMAND`},
		{"bench web --peer podwall=x", `peer "podwall": it needs a command and a name of its own`},
		{"bench web --kubeapi /does/not/exist", "kubeapi is missing (run `make kubeapi`, or name it with --kubeapi)"},
		{"bench control --only nothing", `unknown part "nothing", want one of api, large`},
		{"bench control --rounds 0", "--rounds is 0"},
		{"bench control --kubeapi /does/not/exist", "looking for the API server"},
		{"ruleset -f ../../../examples/demo", "no --node given; the pods are on node1, node2"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			args := strings.Fields(tt.line)
			if !strings.Contains(tt.line, "--agent") && args[0] != "frobnicate" && args[0] != "ruleset" {
				args = withAgentFlag(args...)
			}
			status, out, stderr := commandLine(t, args...)
			if status != statusUsage || out != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit status %d, stdout %q, stderr %q; want %d and one line with %q", status, out, stderr, statusUsage, tt.want)
			}
		})
	}
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	for _, name := range []string{"demo", "run", "check", "ruleset", "bench packets", "bench web", "bench control"} {
		status, out, _ := commandLine(t, append(strings.Fields(name), "--help")...)
		if status != 0 || !strings.Contains(out, "Examples:\n  podwall-lab "+name) || !strings.Contains(out, "xit status") {
			t.Errorf("%s --help: exit status %d\n%s", name, status, out)
		}
	}
}

// helps returns the command lines that print the help of a command and of all below it.
func helps(cmd *cobra.Command) [][]string {
	list := [][]string{append(strings.Fields(cmd.CommandPath())[1:], "--help")}
	for _, c := range cmd.Commands() {
		list = append(list, helps(c)...)
	}
	return list
}

func TestNoHelpIsWiderThanATerminal(t *testing.T) {
	for _, args := range helps(newRoot("test", Streams{Out: io.Discard, Err: io.Discard})) {
		status, out, _ := commandLine(t, args...)
		if status != 0 {
			t.Errorf("%v: exit status %d", args, status)
		}
		notWider(t, strings.Join(args, " "), out)
	}
}

// notWider reports lines that a terminal would wrap.
func notWider(t *testing.T, name, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
			t.Errorf("%s: %d columns: %s", name, n, line)
		}
	}
}

func TestRulesetPrintsTheTableOfANode(t *testing.T) {
	status, out, stderr := commandLine(t, "ruleset", "-f", "../../../examples/demo", "--node", "node1")
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	for _, part := range []string{"table inet podwall {", "10.244.1.11", "type nat hook postrouting priority -190"} {
		if !strings.Contains(out, part) {
			t.Errorf("the table does not say %q:\n%s", part, out)
		}
	}
	if strings.Contains(out, "10.244.2.11") {
		t.Error("the table has a pod of another node")
	}
}

// What is printed is what a node loads with the agent's default flags: unknown pods are
// closed, and invalid packets dropped. On a bridge that is more.
func TestRulesetPrintsWhatADefaultNodeLoads(t *testing.T) {
	args := []string{"ruleset", "-f", "../../../examples/demo", "--node", "node1"}
	closed := []string{"elements = { \"lo\" }", "iifname != @non-pod-links jump antispoof", "chain guarded {", "chain unjudged-input {"}
	onBridge := []string{"hook prerouting priority -190", "table bridge podwall {", "elements = { \"kube-bridge\" }"}
	_, plain, _ := commandLine(t, args...)
	_, bridged, _ := commandLine(t, append(args, "--bridge")...)
	for _, part := range closed {
		if !strings.Contains(plain, part) || !strings.Contains(bridged, part) {
			t.Errorf("%q is not in\n%s", part, plain)
		}
	}
	for _, part := range onBridge {
		if strings.Contains(plain, part) || !strings.Contains(bridged, part) {
			t.Errorf("%q: on routed pods %t, on a bridge %t", part, strings.Contains(plain, part), strings.Contains(bridged, part))
		}
	}
}

func TestRulesetPrintsTheTablesOfServices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.yaml")
	text := `
{apiVersion: v1, kind: Node, metadata: {name: node1}, spec: {podCIDRs: [10.244.1.0/24]},
 status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: node1, containers: [{name: c}]},
 status: {podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.5}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
 spec: {type: NodePort, clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"ruleset", "-f", file, "--node", "node1"}
	_, plain, _ := commandLine(t, args...)
	status, served, stderr := commandLine(t, append(args, "--services")...)
	if status != 0 || strings.Contains(plain, "podwall-services") {
		t.Errorf("exit status %d, %s; without the flag:\n%s", status, stderr, plain)
	}
	for _, part := range []string{"table ip podwall-services {", "table ip6 podwall-services {", "elements = { 10.244.1.0/24 }",
		"10.96.0.10 . tcp . 80 . 0 : 10.244.1.5 . 8080", "elements = { 192.0.2.1 }", "tcp . 30080 : goto masquerade-port-pick-1"} {
		if !strings.Contains(served, part) {
			t.Errorf("%q is not in\n%s", part, served)
		}
	}
}

func TestAnAnswerThatCannotBePrintedIsAFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var stderr strings.Builder
	args := []string{"ruleset", "-f", "../../../examples/demo", "--node", "node1"}
	if status := Run(t.Context(), "test", args, Streams{Out: full, Err: &stderr}); status != statusUsage {
		t.Errorf("exit status %d, %s", status, stderr.String())
	}
}
