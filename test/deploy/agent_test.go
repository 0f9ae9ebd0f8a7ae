// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/inet"
)

// parse reads the arguments of a file's first container as the agent does.
func parse(t *testing.T, file string) (config.Config, []config.Notice) {
	t.Helper()
	args := daemonSet(t, file).Spec.Template.Spec.Containers[0].Args
	env := func(name string) string { return map[string]string{"NODE_NAME": "node1"}[name] }
	cfg, notices, err := config.Parse(args, env, io.Discard)
	if err != nil {
		t.Fatalf("%s: the agent refuses %q: %v", file, args, err)
	}
	return cfg, notices
}

// The chart repeats the agent's defaults so that people see them. They must not
// drift apart.
func TestTheChartsDefaultsAreTheAgents(t *testing.T) {
	want := config.Default()
	want.NodeName = "node1"
	want.HealthAddr = "127.0.0.1"      // the kubelet asks on the node
	want.SysctlRoot = "/host/proc/sys" // the container's own is read-only
	got, notices := parse(t, plainFile)
	if diff := cmp.Diff(want, got); diff != "" || len(notices) > 0 {
		t.Errorf("-agent +chart:\n%s%v", diff, notices)
	}
}

// With the service proxy the role may also list and watch what the proxy reads, and nothing more of it.
func TestTheRoleOfTheServiceProxy(t *testing.T) {
	granted := func(file, group, resource string) (verbs []string) {
		for _, rule := range object[rbacv1.ClusterRole](t, file, "ClusterRole").Rules {
			if slices.Contains(rule.APIGroups, group) && slices.Contains(rule.Resources, resource) {
				verbs = append(verbs, rule.Verbs...)
			}
		}
		return slices.Sorted(slices.Values(verbs))
	}
	for resource, group := range map[string]string{"services": "", "endpointslices": "discovery.k8s.io"} {
		if got := granted(everyOption, group, resource); !slices.Equal(got, []string{"list", "watch"}) {
			t.Errorf("with the proxy %s may be used by %v, want list and watch", resource, got)
		}
		if got := granted(plainFile, group, resource); got != nil {
			t.Errorf("without the proxy %s may be used by %v", resource, got)
		}
	}
}

func TestEveryValueOfTheChartReachesTheAgent(t *testing.T) {
	want := config.Default()
	want.NodeName = "node1"
	want.CacheSyncTimeout = time.Hour + 2*time.Minute + 3*time.Second
	want.SyncPeriod = time.Second
	want.PolicyAudit, want.DeniedGroup = config.AuditForbid, 7
	want.DeniedTo = []config.DeniedSink{config.DeniedStdout, config.DeniedEvents}
	want.Datapath, want.Guard, want.UnknownPods, want.OnPolicyChange = config.DatapathFilter, config.GuardOn, config.UnknownOpen, config.OnChangeKeep
	want.Uplinks = []string{"wg0", "tun*"}
	want.ExtraAddresses = config.Ranges{
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24"), netip.MustParsePrefix("fd00:200::/64")},
		Hardware: []inet.HardwareRange{{Addr: inet.Hardware{0x52, 0x54}, Bits: 24}}}
	want.IPv4 = false
	want.HealthPort, want.MetricsAddr, want.MetricsPort, want.MetricsPath = 20300, "::", 20301, "/figures"
	want.Verbosity, want.LogFormat = 2, config.LogJSON
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	want.RunServiceProxy = true
	want.Services = config.Services{Backend: config.BackendNFTables, ClusterRanges: append(prefix("10.96.0.0/12"), prefix("fd00:96::/112")...),
		ExternalRanges: prefix("198.51.100.0/24"), LoadBalancerRanges: prefix("203.0.113.0/24"), AnyExternal: true,
		ClusterPods: prefix("10.244.0.0/16"), EveryAddress: true, MasqueradeAll: true, HealthPort: 10257, TakeOver: true}
	want.GateSocket = "" // an extra argument
	got, _ := parse(t, everyOption)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTheSeedsArgumentsAreAccepted(t *testing.T) {
	for _, file := range []string{seedFile, takeOver} {
		got, notices := parse(t, file)
		if got.SyncPeriod != time.Second || got.CacheSyncTimeout != 5*time.Minute || got.Kubeconfig != "/var/lib/kube-router/kubeconfig" || len(notices) > 0 {
			t.Errorf("%s: %+v %v", file, got, notices)
		}
	}
	// The form with fewer rights does the same, from the ServiceAccount.
	seed, _ := parse(t, seedFile)
	less, _ := parse(t, tkeFile)
	seed.Kubeconfig, seed.HealthAddr, seed.SysctlRoot = "", "127.0.0.1", "/host/proc/sys"
	if diff := cmp.Diff(seed, less); diff != "" {
		t.Errorf("-seed +least privilege:\n%s", diff)
	}
}

// Only the image, the API version and what its comments name differ.
func TestTheSeedsFileStaysWhatItWas(t *testing.T) {
	seed, ours := daemonSet(t, seedFile), daemonSet(t, takeOver)
	if ours.APIVersion != "apps/v1" || cmp.Diff(seed.ObjectMeta, ours.ObjectMeta) != "" {
		t.Errorf("%s %+v, was %s %+v", ours.APIVersion, ours.ObjectMeta, seed.APIVersion, seed.ObjectMeta)
	}
	if diff := cmp.Diff(seed.Spec.Template.Labels, ours.Spec.Selector.MatchLabels); diff != "" {
		t.Errorf("labels and selector differ:\n%s", diff)
	}
	was, is := seed.Spec.Template, ours.Spec.Template
	was.Annotations, was.Spec.PriorityClassName = nil, "system-node-critical"
	was.Spec.InitContainers = nil
	was.Spec.Containers[0].Image, was.Spec.Containers[0].ImagePullPolicy = is.Spec.Containers[0].Image, "IfNotPresent"
	if diff := cmp.Diff(was, is); diff != "" {
		t.Errorf("-seed +ours:\n%s", diff)
	}
	one, other := documents(t, seedFile)[0], documents(t, takeOver)[0]
	if one.Kind != "ConfigMap" || object[map[string]any](t, seedFile, "ConfigMap")["data"] == nil {
		t.Fatalf("the example begins with %s", one.Kind)
	}
	if diff := cmp.Diff(object[map[string]any](t, seedFile, "ConfigMap"), object[map[string]any](t, takeOver, "ConfigMap")); diff != "" {
		t.Errorf("%s %s: -seed +ours:\n%s", other.Kind, other.Name, diff)
	}
}

// All forms run the release that the chart names.
func TestAllFilesNameOneImage(t *testing.T) {
	image := daemonSet(t, plainFile).Spec.Template.Spec.Containers[0].Image
	for _, file := range []string{tkeFile, takeOver, cleanFile} {
		if got := daemonSet(t, file).Spec.Template.Spec.Containers[0].Image; got != image {
			t.Errorf("%s runs %s, the chart %s", file, got, image)
		}
	}
}

func TestProbesAskThePortOfTheArguments(t *testing.T) {
	for _, file := range []string{plainFile, tkeFile, takeOver, everyOption} {
		cfg, _ := parse(t, file)
		c := daemonSet(t, file).Spec.Template.Spec.Containers[0]
		if p := c.LivenessProbe.Exec; file == everyOption && p != nil {
			if asks, _, err := config.Parse(p.Command[1:], func(string) string { return "" }, io.Discard); err != nil || asks.Probe != config.ProbeLive {
				t.Errorf("%s: the probe runs %q: %v", file, p.Command, err)
			}
			continue
		}
		port := c.LivenessProbe.HTTPGet.Port
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				port.IntVal = p.ContainerPort
			}
		}
		if port.IntVal != int32(cfg.HealthPort) || c.LivenessProbe.HTTPGet.Path != "/healthz" {
			t.Errorf("%s: the probe asks %v, the agent answers on %d", file, c.LivenessProbe.HTTPGet, cfg.HealthPort)
		}
		if !slices.Contains([]string{"", cfg.HealthAddr}, c.LivenessProbe.HTTPGet.Host) || cfg.HealthAddr != "" && c.LivenessProbe.HTTPGet.Host == "" {
			t.Errorf("%s: the probe asks %q, the agent answers on %q", file, c.LivenessProbe.HTTPGet.Host, cfg.HealthAddr)
		}
	}
}
