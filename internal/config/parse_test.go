// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"flag"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func node1(name string) string {
	return map[string]string{"NODE_NAME": "node-1"}[name]
}

// with returns the defaults on node-1, changed.
func with(change func(*Config)) Config {
	c := Default()
	c.NodeName = "node-1"
	change(&c)
	return c
}

func TestTheSeedsCommandLineWorksUnchanged(t *testing.T) {
	got, notices, err := Parse([]string{
		"--run-router=false", "--run-firewall=true", "--run-service-proxy=false",
		"--kubeconfig=/var/lib/kube-router/kubeconfig", "--iptables-sync-period=1s", "--cache-sync-timeout=5m",
	}, node1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := with(func(c *Config) {
		c.Kubeconfig = "/var/lib/kube-router/kubeconfig"
		c.SyncPeriod = time.Second
		c.CacheSyncTimeout = 5 * time.Minute
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if len(notices) != 0 {
		t.Errorf("notices = %v, want none", notices)
	}
	if got.HealthListen() != ":20244" || got.MetricsListen() != "" {
		t.Errorf("listens on %q and %q, want :20244 and nothing", got.HealthListen(), got.MetricsListen())
	}
}

func TestFlagsAreReadInEveryFormThatKubeRouterAccepts(t *testing.T) {
	tests := []struct {
		name string
		args string
		want func(*Config)
	}{
		{"no arguments", "", func(*Config) {}},
		{"value after an equals sign", "--kubeconfig=/k", func(c *Config) { c.Kubeconfig = "/k" }},
		{"value in the next argument", "--kubeconfig /k --health-port 0", func(c *Config) { c.Kubeconfig, c.HealthPort = "/k", 0 }},
		{"value that starts with a dash", "--kubeconfig -", func(c *Config) { c.Kubeconfig = "-" }},
		{"value that holds an equals sign", "--kubeconfig=/k/a=b", func(c *Config) { c.Kubeconfig = "/k/a=b" }},
		{"empty value", "--health-addr=", func(*Config) {}},
		{"single dash for a long name", "-master=https://h", func(c *Config) { c.Master = "https://h" }},
		{"switch without a value", "--cleanup-config", func(c *Config) { c.Cleanup = true }},
		{"switch with a value", "--enable-ipv6=false", func(c *Config) { c.IPv6 = false }},
		{"switch with another spelling of true", "--cleanup-config=T", func(c *Config) { c.Cleanup = true }},
		{"last of several equal flags", "-v=1 --v=3", func(c *Config) { c.Verbosity = 3 }},
		{"verbosity in the next argument", "-v 2", func(c *Config) { c.Verbosity = 2 }},
		{"verbosity attached", "-v2", func(c *Config) { c.Verbosity = 2 }},
		{"node name by flag", "--hostname-override=Node-2", func(c *Config) { c.NodeName = "Node-2" }},
		{"own flags", "--manifests=/m --datapath=filter --invalid-guard=on --log-format=text --sysctl-root=/s", func(c *Config) {
			c.Manifests, c.Datapath, c.Guard, c.LogFormat, c.SysctlRoot = "/m", DatapathFilter, GuardOn, LogText, "/s"
		}},
		{"serving", "--metrics-addr=[::1] --metrics-port=8080 --metrics-path=/m", func(c *Config) {
			c.MetricsAddr, c.MetricsPort, c.MetricsPath = "[::1]", 8080, "/m"
		}},
		{"services", "--run-service-proxy --service-cluster-ip-range=10.96.0.5/12,fd00::/112 --loadbalancer-ip-range=192.0.2.0/24 " +
			"--strict-external-ip-validation=false --nodeport-bindon-all-ip --masquerade-all --cluster-cidr=10.244.0.0/16",
			func(c *Config) {
				c.RunServiceProxy = true
				c.Services = Services{HealthPort: 10256, Backend: BackendNFTables, AnyExternal: true, EveryAddress: true, MasqueradeAll: true,
					ClusterRanges:      []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00::/112")},
					LoadBalancerRanges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
					ClusterPods:        []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
			}},
		{"strictness as it is by default", "--run-service-proxy --strict-external-ip-validation=true",
			func(c *Config) { c.RunServiceProxy = true }},
		{"open the node", "--open-node=why", func(c *Config) { c.OpenNode = "why" }},
		{"close the node", "--close-node", func(c *Config) { c.CloseNode = true }},
		{"cleanup that stays", "--cleanup-config --wait-after-cleanup", func(c *Config) { c.Cleanup, c.CleanupWait = true, true }},
		{"a step of uninstalling", "--uninstall=await-nodes --uninstall-timeout=1m",
			func(c *Config) { c.Uninstall, c.UninstallTimeout = StepAwaitNodes, time.Minute }},
		{"removal of kube-router's firewall", "--remove-kube-router-firewall=plan", func(c *Config) { c.Removal = RemovalPlan }},
		{"IPVS", "--run-service-proxy --service-proxy-backend=ipvs", func(c *Config) {
			c.RunServiceProxy, c.Services.Backend = true, BackendIPVS
		}},
		{"timeouts of IPVS", "--run-service-proxy --service-proxy-backend=ipvs --service-tcp-timeout=2h " +
			"--service-tcpfin-timeout=1m --service-udp-timeout=0s", func(c *Config) {
			c.RunServiceProxy, c.Services.Backend = true, BackendIPVS
			c.Services.TCPTimeout, c.Services.TCPFinTimeout = 2*time.Hour, time.Minute
		}},
		{"cleanup without the firewall", "--run-firewall=false --cleanup-config", func(c *Config) { c.RunFirewall, c.Cleanup = false, true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := Parse(strings.Fields(tt.args), node1, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(with(tt.want), got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestACommandLineThatCannotRunSaysWhyInOneLine(t *testing.T) {
	tests := []struct {
		name string
		args string
		want []string // parts of the one line
	}{
		{"a router is asked for", "--run-router=true", []string{"--run-router=true: not supported yet", "it is true in kube-router"}},
		{"no range", "--service-cluster-ip-range=10.96.0.1", []string{`--service-cluster-ip-range: "10.96.0.1" is no range`}},
		{"an IPv4 range in IPv6 form", "--cluster-cidr=::ffff:10.0.0.0/104", []string{"write the IPv4 address"}},
		{"an allocator is asked for", "--run-loadbalancer=true", []string{"--run-loadbalancer=true: not supported yet"}},
		{"Services without policies", "--run-firewall=false --run-service-proxy=true", []string{
			"--run-firewall=false with --run-service-proxy=true: not supported: rules that are in the kernel would judge " +
				"new pods by old policies; leave --run-firewall out"}},
		{"IPVS with filter chains", "--run-service-proxy --service-proxy-backend=ipvs --datapath=filter", []string{
			"--service-proxy-backend=ipvs with --datapath=filter: not supported: filter chains would drop ICMP errors"}},
		{"a back end that there is not", "--service-proxy-backend=ebpf", []string{`--service-proxy-backend: "ebpf" is none of nftables, ipvs`}},
		{"nothing is left to run", "--run-firewall=false", []string{"--run-firewall=false: this program runs no part without"}},
		{"two sources", "--manifests=/m --kubeconfig=/k", []string{"--manifests excludes --kubeconfig and --master"}},
		{"two sources, the other way", "--manifests=/m --master=https://h", []string{"--manifests excludes"}},
		{"a typing error in a name", "--iptable-sync-period=1s", []string{"unknown flag --iptable-sync-period; did you mean --iptables-sync-period?"}},
		{"an underscore in a name", "--run_firewall=true", []string{"did you mean --run-firewall?"}},
		{"a name that resembles nothing", "--frobnicate", []string{"unknown flag --frobnicate; see --help"}},
		{"an unknown letter", "-x", []string{"unknown flag -x; see --help"}},
		{"a value is missing", "--kubeconfig", []string{"--kubeconfig needs a value"}},
		{"no duration", "--iptables-sync-period=5", []string{`--iptables-sync-period: "5" is not a duration`}},
		{"no time at all", "--iptables-sync-period=0s", []string{"--iptables-sync-period=0s: must be longer than 0"}},
		{"negative time-out", "--cache-sync-timeout=-5m", []string{"--cache-sync-timeout=-5m: must be longer than 0"}},
		{"no boolean", "--enable-ipv4=ja", []string{`--enable-ipv4: "ja" is not a boolean`}},
		{"a switch with a detached value", "--enable-ipv4 false", []string{`unexpected argument "false"`, "--enable-ipv4=false"}},
		{"a stray word", "start", []string{`unexpected argument "start"`}},
		{"a lone dash", "-", []string{`unexpected argument "-"`}},
		{"the end-of-flags mark", "--", []string{`unexpected argument "--"`}},
		{"a port out of range", "--health-port=65536", []string{`--health-port: "65536" is not a port`}},
		{"no level", "-v=info", []string{`-v: "info" is not a whole number`}},
		{"a negative level", "-v=-1", []string{"-v=-1: must not be negative"}},
		{"no such datapath", "--datapath=ebpf", []string{`--datapath: "ebpf" is none of nat, filter`}},
		{"no such guard", "--invalid-guard=maybe", []string{"is none of auto, on, off"}},
		{"a wrong value of a flag without effect", "--bgp-port=x", []string{`--bgp-port: "x" is not a whole number`}},
		{"no family", "--enable-ipv4=false --enable-ipv6=false", []string{"enable at least one family"}},
		{"a port in an address", "--health-addr=127.0.0.1:80", []string{"--health-addr=127.0.0.1:80: is neither"}},
		{"a directory that is no absolute path", "--sysctl-root=proc/sys", []string{"--sysctl-root=proc/sys: must be the absolute path of a directory"}},
		{"a path without a slash", "--metrics-path=metrics", []string{"must start with a slash"}},
		{"a path that is taken", "--metrics-port=20244 --metrics-path=/healthz", []string{"--metrics-path=/healthz: is taken"}},
		{"one port, two addresses", "--metrics-port=20244 --metrics-addr=127.0.0.1", []string{"are both 20244"}},
		{"two things to do once", "--cleanup-config --remove-kube-router-firewall=now", []string{"--cleanup-config, --remove-kube-router-firewall: each does one thing"}},
		{"open and close", "--open-node=x --close-node", []string{"--open-node, --close-node: each does one thing"}},
		{"open without a reason", "--open-node=", []string{"--open-node: say why"}},
		{"wait after nothing", "--wait-after-cleanup", []string{"--wait-after-cleanup without --cleanup-config"}},
		{"removal without saying how", "--remove-kube-router-firewall=yes", []string{"none of plan, now, now-beside-kube-bridge"}},
		{"sinks without a group", "--denied-flows-to=stdout,events", []string{"--denied-flows-to=stdout,events without --denied-flows-group"}},
		{"no such sink", "--denied-flows-group=7 --denied-flows-to=stdout,log", []string{`"log" is none of stdout, events, counters`}},
		{"no group", "--denied-flows-group=65536", []string{`"65536" is no NFLOG group`}},
		{"Events without an API server", "--manifests=/m --denied-flows-group=7 --denied-flows-to=events", []string{"there is no API server"}},
		{"a list of nothing", "--list-denied-flows=-1m", []string{`--list-denied-flows: "-1m" is not longer than 0`}},
		{"a list of no time", "--list-denied-flows=0", []string{`"0" is not longer than 0`}},
		{"nothing to follow", "--follow", []string{"--follow without --list-denied-flows"}},
		{"list and probe", "--list-denied-flows=1m --probe=live", []string{"each does one thing"}},
		{"several problems", "--run-router --enable-ipv4=false --enable-ipv6=false --run-loadbalancer", []string{
			"--run-loadbalancer=true", "; --run-router=true", "; --enable-ipv4=false"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			_, _, err := Parse(strings.Fields(tt.args), node1, &out)
			var usage *UsageError
			if !errors.As(err, &usage) {
				t.Fatalf("error = %v, want a UsageError", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") || out.Len() > 0 {
				t.Errorf("error %q and output %q, want one line and nothing", err, &out)
			}
		})
	}
}

func TestFlagsWithoutEffectGiveOneNoticeEach(t *testing.T) {
	args := strings.Fields("--bgp-port=1 --service-cluster-ip-range 10.0.0.0/8 --enable-pprof -v=1 --bgp-port=2 " +
		"--netpol-default-deny=true --run-loadbalancer=false --excluded-cidrs=a,b")
	_, notices, err := Parse(args, node1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range notices {
		got = append(got, n.Flag)
		if !strings.HasPrefix(n.String(), "--"+n.Flag+": not needed: ") {
			t.Errorf("notice %q does not say that the flag is not needed", n)
		}
	}
	want := []string{"bgp-port", "service-cluster-ip-range", "enable-pprof", "netpol-default-deny", "excluded-cidrs"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
}

// The kernel takes whole seconds, and not too many.
func TestTimeoutsThatTheKernelDoesNotTake(t *testing.T) {
	for _, flag := range []string{"--service-tcp-timeout=-1s", "--service-udp-timeout=1.5s", "--service-tcpfin-timeout=1000h"} {
		_, _, err := Parse([]string{flag}, node1, io.Discard)
		if want := flag + ": must be a number of seconds up to 596h31m23s"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", flag, err, want)
		}
	}
}

// A flag for IPVS where it does not choose is no error, as in a command line that kube-router has.
func TestTimeoutsWithoutIPVSAreNotNeeded(t *testing.T) {
	const noProxy = "not needed: it configures the service proxy, which does not run here"
	const noIPVS = "not needed: it configures IPVS, and --service-proxy-backend is nftables"
	for args, want := range map[string]string{
		"--service-tcp-timeout=2h":                                                  noProxy,
		"--service-tcp-timeout=2h --run-service-proxy":                              noIPVS,
		"--service-udp-timeout=2h --run-service-proxy":                              noIPVS,
		"--service-tcp-timeout=2h --run-service-proxy --service-proxy-backend=ipvs": "",
	} {
		_, notices, err := Parse(strings.Fields(args), node1, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, n := range notices {
			got += n.Text
		}
		if got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func TestHelpAndVersionComeBeforeEveryCheck(t *testing.T) {
	for _, args := range []string{"-h", "--help", "--run-router -h"} {
		var out strings.Builder
		_, _, err := Parse(strings.Fields(args), node1, &out)
		if !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), "--iptables-sync-period DURATION") {
			t.Errorf("Parse(%s) = %v with output %.40q, want the help", args, err, &out)
		}
	}
	for _, args := range []string{"-V", "--version", "--version=true --run-router"} {
		c, _, err := Parse(strings.Fields(args), node1, io.Discard)
		if err != nil || !c.Version {
			t.Errorf("Parse(%s) = version %t, %v, want true, nil", args, c.Version, err)
		}
	}
}

func TestTheNodeNameIsFlagThenEnvironmentThenHostName(t *testing.T) {
	broken := errors.New("no name")
	host := func() (string, error) { return " Host-3\n", nil }
	none := func(string) string { return "" }
	tests := []struct {
		name     string
		flag     string
		env      func(string) string
		hostname func() (string, error)
		want     string
		err      error
	}{
		{"flag wins", "flag-1", node1, host, "flag-1", nil},
		{"environment is next", "", node1, host, "node-1", nil},
		{"host name is last, in lower case", "", none, host, "host-3", nil},
		{"no name at all", "", none, func() (string, error) { return "", broken }, "", broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{NodeName: tt.flag}
			err := c.setNodeName(tt.env, tt.hostname)
			if !errors.Is(err, tt.err) || c.NodeName != tt.want {
				t.Errorf("node name %q, %v; want %q, %v", c.NodeName, err, tt.want, tt.err)
			}
		})
	}
}

func TestTheNearestNameIsSuggested(t *testing.T) {
	known := []string{"peer-router-passwords", "peer-router-passwords-file", "peer-router-ports", "v", "version"}
	for name, want := range map[string]string{
		"peer-router-passwords-fil": "peer-router-passwords-file",
		"peer-router-password":      "peer-router-passwords",
		"peer-router-port":          "peer-router-ports",
		"Version":                   "version",
		"w":                         "",
		"kubernetes":                "",
	} {
		if got := closest(name, known); got != want {
			t.Errorf("closest(%s) = %q, want %q", name, got, want)
		}
	}
	// Of equally near names the first one counts.
	if got := closest("abcx", []string{"abca", "abcb"}); got != "abca" {
		t.Errorf("closest of two equals = %q, want the first", got)
	}
}

func TestRangesOfFurtherAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"10.200.0.0/24, fd00:200::/64": "10.200.0.0/24,fd00:200::/64",
		"10.200.0.7,52:54:00:00:00:00/24,02:00:00:00:00:01": "10.200.0.7/32,52:54:00:00:00:00/24,02:00:00:00:00:01/48",
	} {
		c, _, err := Parse([]string{"--extra-addresses=" + text}, node1, io.Discard)
		if got := c.ExtraAddresses.String(); err != nil || got != want {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"10.200.0.1/24":        "has bits set behind the prefix; write 10.200.0.0/24",
		"all":                  "is no range; write for example",
		"::ffff:10.0.0.0/120":  "write the IPv4 address",
		"52:54:00:00:00:00/49": "is no range",
	} {
		if _, _, err := Parse([]string{"--extra-addresses=" + text}, node1, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestTheHelpHasTheExitCodes(t *testing.T) {
	var b strings.Builder
	Usage(&b)
	_, codes, found := strings.Cut(b.String(), "\nExit codes:\n")
	lines := strings.Split(strings.TrimSpace(codes), "\n")
	if !found || len(lines) != 6 {
		t.Fatalf("the help ends with %q", codes)
	}
	for i, line := range lines {
		if !strings.HasPrefix(strings.TrimSpace(line), strconv.Itoa(i)+" ") {
			t.Errorf("line %d is %q", i, line)
		}
	}
}

func TestTargetsOfAProbe(t *testing.T) {
	const want = "tcp/10.0.0.5:80,udp/[fd00::1]:53"
	c, _, err := Parse([]string{"--connect=" + want}, node1, io.Discard)
	if err != nil || len(c.Connect) != 2 || targets(&c.Connect).String() != want {
		t.Errorf("%v, %v", c.Connect, err)
	}
	for line, want := range map[string]string{"--connect=tcp/10.0.0.5": `"tcp/10.0.0.5" is no target; write for example`,
		"--connect=tcp/10.0.0.5:80 --show=status": "--show, --connect: each does one thing"} {
		if _, _, err := Parse(strings.Fields(line), node1, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
