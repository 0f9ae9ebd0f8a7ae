// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const referenceFile = "../../docs/configuration.md"

func TestTheReferencePageIsCurrent(t *testing.T) {
	var got bytes.Buffer
	if err := Reference(&got); err != nil {
		t.Fatal(err)
	}
	if update := flag.Lookup("update"); update.Value.String() == "true" {
		if err := os.WriteFile(referenceFile, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/configuration.md is old; run go test ./internal/config -update (-file +now):\n%s", diff)
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the generated page")
	os.Exit(m.Run())
}

// kubeRouterFlags are the flags of kube-router 2.11.
const kubeRouterFlags = `advertise-cluster-ip advertise-external-ip advertise-loadbalancer-ip advertise-pod-cidr
auto-mtu bfd-desired-min-tx-interval bfd-detection-multiplier bfd-port bfd-required-min-rx-interval
bgp-graceful-restart bgp-graceful-restart-deferral-time bgp-graceful-restart-time bgp-holdtime bgp-port
cache-sync-timeout cleanup-config cluster-asn disable-source-dest-check enable-bfd enable-cni enable-ibgp
enable-ipv4 enable-ipv6 enable-overlay enable-pod-egress enable-pprof excluded-cidrs gobgp-admin-address
gobgp-admin-port hairpin-mode health-addr health-port help hostname-override injected-routes-sync-period
iptables-sync-period ipvs-graceful-period ipvs-graceful-termination ipvs-permit-all ipvs-sync-period kubeconfig
loadbalancer-default-class loadbalancer-ip-range loadbalancer-sync-period masquerade-all master metrics-addr
metrics-path metrics-port netpol-default-deny nodeport-bindon-all-ip nodes-full-mesh overlay-encap
overlay-encap-port overlay-type override-nexthop peer-router-asns peer-router-ips peer-router-multihop-ttl
peer-router-passwords peer-router-passwords-file peer-router-ports router-id routes-sync-period run-firewall
run-loadbalancer run-router run-service-proxy runtime-endpoint service-cluster-ip-range
service-external-ip-range service-node-port-range service-tcp-timeout service-tcpfin-timeout
service-udp-timeout strict-external-ip-validation use-nftables-for-netpol v version`

func TestEveryFlagOfKubeRouterIsKnownAndNoOtherExceptOurOwn(t *testing.T) {
	want := strings.Fields(kubeRouterFlags)
	if len(want) != 79 {
		t.Fatalf("the list has %d flags, want 79", len(want))
	}
	slices.Sort(want)
	var got, own []string
	for _, g := range groups() {
		for _, o := range g.options {
			if o.why == "" {
				got = append(got, o.name)
			} else {
				own = append(own, o.name)
			}
		}
	}
	for _, f := range foreignFlags() {
		got = append(got, f.name)
	}
	slices.Sort(got)
	slices.Sort(own)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kube-router's flags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"close-node", "cluster-cidr", "connect", "datapath", "denied-flows-group",
		"denied-flows-to", "extra-addresses", "follow", "gate-socket", "invalid-guard", "list-denied-flows",
		"load-balancer-health-port", "log-format", "manifests",
		"on-policy-change", "open-node", "policy-audit", "probe", "remove-kube-router-firewall", "service-proxy-backend", "show",
		"sysctl-root", "takeover",
		"uninstall", "uninstall-timeout", "unknown-pods", "uplink-interfaces", "wait-after-cleanup"}, own); diff != "" {
		t.Errorf("own flags (-want +got):\n%s", diff)
	}
}

func TestHelpFitsAnEightyColumnTerminal(t *testing.T) {
	var b strings.Builder
	Usage(&b)
	for line := range strings.Lines(b.String()) {
		if len(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("line of %d columns: %s", len(line)-1, line)
		}
	}
}

func TestSettingsShowTheEffectiveValues(t *testing.T) {
	c := Default()
	c.NodeName, c.Datapath = "node-1", DatapathFilter
	got := map[string]string{}
	for _, s := range c.Settings() {
		got[s.Flag] = s.Value
	}
	for name, want := range map[string]string{
		"hostname-override": "node-1", "datapath": "filter", "iptables-sync-period": "5m", "health-port": "20244",
	} {
		if got[name] != want {
			t.Errorf("setting %s = %q, want %q", name, got[name], want)
		}
	}
	if _, ok := got["help"]; ok {
		t.Error("help is no setting")
	}
}

func TestValidateJoinsAllProblemsOfAValueMadeByHand(t *testing.T) {
	err := Config{}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) < 4 {
		t.Fatalf("error = %v, want several joined", err)
	}
	for _, part := range []string{"--run-firewall", "--iptables-sync-period", "--cache-sync-timeout",
		"--enable-ipv4", "--datapath", "--invalid-guard", "--log-format", "--metrics-path"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %s", err, part)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults are invalid: %v", err)
	}
}

func TestListeningAddressesAreEqualWhenOneServerIsMeant(t *testing.T) {
	c := Default()
	c.HealthAddr, c.MetricsAddr, c.MetricsPort = "::1", "[::1]", c.HealthPort
	if c.HealthListen() != "[::1]:20244" || c.MetricsListen() != c.HealthListen() {
		t.Errorf("listens on %q and %q, want [::1]:20244 twice", c.HealthListen(), c.MetricsListen())
	}
}

func TestAUsageErrorKeepsWhatItWraps(t *testing.T) {
	inner := errors.New("inner")
	if err := error(&UsageError{errors.Join(inner, errors.New("other"))}); !errors.Is(err, inner) || err.Error() != "inner; other" {
		t.Errorf("error = %q, want both in one line and the inner one found", err)
	}
}
