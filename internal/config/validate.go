// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Validate returns all problems of the settings, joined, or nil. Each is
// written in terms of the flags, with the cure.
func (c Config) Validate() error {
	return errors.Join(c.checkParts(), c.checkSource(), c.checkTimes(), c.checkChoices(), c.checkSysctls(),
		c.checkDenied(), c.checkServing(), c.checkTimeouts())
}

func (c Config) checkParts() error {
	var problems []error
	if c.RunRouter {
		problems = append(problems,
			errors.New("--run-router=true: not supported yet: this program does not wire pods together; leave the "+
				"flag out (its default is false here, while it is true in kube-router)"))
	}
	switch {
	case c.RunFirewall || c.Cleanup:
	case c.RunServiceProxy:
		problems = append(problems, errors.New("--run-firewall=false with --run-service-proxy=true: not supported: "+
			"rules that are in the kernel would judge new pods by old policies; leave --run-firewall out, policies "+
			"cost nothing for pods that none selects. To serve Services without policies, delete the policies"))
	default:
		problems = append(problems,
			errors.New("--run-firewall=false: this program runs no part without the firewall; leave it out, or "+
				"remove what is in the kernel with --cleanup-config"))
	}
	if c.RunServiceProxy && c.Services.Backend == BackendIPVS && c.Datapath == DatapathFilter && !c.Cleanup {
		problems = append(problems, errors.New("--service-proxy-backend=ipvs with --datapath=filter: not supported: "+
			"filter chains would drop ICMP errors of isolated pods, whose source IPVS replaces; leave one of the two "+
			"out"))
	}
	if c.CleanupWait && !c.Cleanup {
		problems = append(problems,
			errors.New("--wait-after-cleanup without --cleanup-config: there is nothing to wait after"))
	}
	if once := c.commands(); len(once) > 1 {
		problems = append(problems, fmt.Errorf("%s: each does one thing and exits; give one of them",
			strings.Join(once, ", ")))
	}
	return errors.Join(problems...)
}

// commands lists the flags that ask for one thing to be done instead of running.
func (c Config) commands() (list []string) {
	if c.Cleanup {
		list = append(list, "--cleanup-config")
	}
	if c.Removal != RemovalNone {
		list = append(list, "--remove-kube-router-firewall")
	}
	if c.OpenNode != "" {
		list = append(list, "--open-node")
	}
	if c.CloseNode {
		list = append(list, "--close-node")
	}
	if c.Probe != ProbeNone {
		list = append(list, "--probe")
	}
	if c.Uninstall != StepNone {
		list = append(list, "--uninstall")
	}
	if c.ListDenied != 0 {
		list = append(list, "--list-denied-flows")
	}
	if c.Show != ShowNone {
		list = append(list, "--show")
	}
	if len(c.Connect) > 0 {
		list = append(list, "--connect")
	}
	return list
}

func (c Config) checkDenied() error {
	var problems []error
	if len(c.DeniedTo) > 0 && c.DeniedGroup == 0 {
		problems = append(problems, fmt.Errorf("--denied-flows-to=%s without --denied-flows-group: nothing is "+
			"recorded; give a group that no other program uses, or leave the flag out",
			strings.ReplaceAll(join(c.DeniedTo), ", ", ",")))
	}
	if c.FollowDenied && c.ListDenied == 0 {
		problems = append(problems, errors.New("--follow without --list-denied-flows: there is nothing to follow"))
	}
	if slices.Contains(c.DeniedTo, DeniedEvents) && c.Manifests != "" {
		problems = append(problems, errors.New("--denied-flows-to=events with --manifests: there is no API server to "+
			"write Events to; leave events out"))
	}
	return errors.Join(problems...)
}

func (c Config) checkSource() error {
	if c.Manifests != "" && (c.Kubeconfig != "" || c.Master != "") {
		return errors.New("--manifests excludes --kubeconfig and --master: the cluster is read from one place")
	}
	return nil
}

func (c Config) checkTimes() error {
	positive := func(name string, d time.Duration) error {
		if d > 0 {
			return nil
		}
		return fmt.Errorf("--%s=%s: must be longer than 0", name, shortDuration(d))
	}
	return errors.Join(
		positive("iptables-sync-period", c.SyncPeriod),
		positive("cache-sync-timeout", c.CacheSyncTimeout),
		positive("uninstall-timeout", c.UninstallTimeout),
	)
}

// checkChoices matters for values that were put together by hand; the command
// line cannot produce them, except for the families and the verbosity.
func (c Config) checkChoices() error {
	var problems []error
	if !c.IPv4 && !c.IPv6 {
		problems = append(problems,
			errors.New("--enable-ipv4=false with --enable-ipv6=false would close isolated pods completely; enable "+
				"at least one family"))
	}
	if c.Verbosity < 0 {
		problems = append(problems, fmt.Errorf("-v=%d: must not be negative", c.Verbosity))
	}
	return errors.Join(append(problems,
		among("datapath", c.Datapath, DatapathNAT, DatapathFilter),
		among("invalid-guard", c.Guard, GuardAuto, GuardOn, GuardOff),
		among("unknown-pods", c.UnknownPods, UnknownClosed, UnknownOpen),
		among("on-policy-change", c.OnPolicyChange, OnChangeCut, OnChangeKeep),
		among("policy-audit", c.PolicyAudit, auditValues()...),
		among("log-format", c.LogFormat, LogAuto, LogText, LogJSON))...)
}

func (c Config) checkSysctls() error {
	if strings.HasPrefix(c.SysctlRoot, "/") {
		return nil
	}
	return fmt.Errorf("--sysctl-root=%s: must be the absolute path of a directory; leave the flag out for /proc/sys",
		c.SysctlRoot)
}

func among[T ~string](name string, got T, choices ...T) error {
	if slices.Contains(choices, got) {
		return nil
	}
	return fmt.Errorf("--%s=%s: is none of %s", name, got, join(choices))
}

func (c Config) checkServing() error {
	problems := []error{checkAddr("health-addr", c.HealthAddr), checkAddr("metrics-addr", c.MetricsAddr),
		checkPagePath(c.MetricsPath)}
	shared := c.HealthPort != 0 && c.HealthPort == c.MetricsPort
	sameAddr := unbracket(c.HealthAddr) == unbracket(c.MetricsAddr)
	switch {
	case shared && sameAddr && slices.Contains([]string{"/healthz", "/readyz", "/statusz"}, c.MetricsPath):
		problems = append(problems,
			fmt.Errorf("--metrics-path=%s: is taken on this port; choose another path or another --metrics-port",
				c.MetricsPath))
	case shared && !sameAddr && (everyAddr(c.HealthAddr) || everyAddr(c.MetricsAddr)):
		problems = append(problems,
			fmt.Errorf("--health-port and --metrics-port are both %d, and one of them listens on every address; "+
				"give both the same address, or different ports", c.HealthPort))
	}
	return errors.Join(problems...)
}

// checkAddr refuses what is no address, and one that carries a port. Which host names
// there are is left to the system.
func checkAddr(name, addr string) error {
	bare := unbracket(addr)
	switch err := checkHost(bare); {
	case bare == "" || err == nil:
		return nil
	case strings.Contains(bare, ":"):
		return fmt.Errorf("--%s=%s: is neither an IP address nor a host name; the port has its own flag", name, addr)
	default:
		return fmt.Errorf("--%s: %w; write for example 127.0.0.1", name, err)
	}
}

func everyAddr(addr string) bool {
	ip, err := netip.ParseAddr(unbracket(addr))
	return addr == "" || err == nil && ip.IsUnspecified()
}
