// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"regexp"
	"strings"

	"github.com/podwall/podwall/internal/leftover"
)

// The interfaces to which the proxies on IPVS bind the addresses of Services.
const (
	ipvsLink  = "kube-ipvs0"
	dummyLink = "kube-dummy-if"
)

// Names in tables of iptables. The digest is 16 characters of base 32 in every release. KUBE-FIREWALL and
// KUBE-KUBELET-CANARY are the kubelet's, and KUBE-ROUTER-INPUT and its like those of kube-router's firewall.
const (
	natChains = `KUBE-(SERVICES|NODEPORTS|NODE-PORT|POSTROUTING|MARK-MASQ|PROXY-CANARY|LOAD-BALANCER|` +
		`(SVC|SVL|SEP|FW|EXT|XLB)-[A-Z2-7]{16})`
	filterChains = `KUBE-(SERVICES|EXTERNAL-SERVICES|FORWARD|NODEPORTS|NODE-PORT|PROXY-FIREWALL|PROXY-CANARY|` +
		`SOURCE-RANGES-FIREWALL|IPVS-FILTER|IPVS-OUT-FILTER)`
	canary           = "KUBE-PROXY-CANARY"
	markChain        = "KUBE-MARK-MASQ"
	postroutingChain = "KUBE-POSTROUTING"
)

var (
	natChain    = regexp.MustCompile(`^` + natChains + `$`)
	filterChain = regexp.MustCompile(`^` + filterChains + `$`)
	// At most 31 characters: two names of IPv6 lose their last one.
	kubeProxySet = regexp.MustCompile(`^KUBE-(6-)?(LOOP-BACK|CLUSTER-IP|EXTERNAL-IP(-LOCAL)?|` +
		`LOAD-BALANCER(-LOCAL|-FW|-SOURCE-IP|-SOURCE-CIDR?)?|NODE-PORT(-LOCAL)?-(TCP|UDP|SCTP-HASH?)|` +
		`HEALTH-CHECK-NODE-PORT|IPVS-IPS)$`)
	kubeRouterSet = regexp.MustCompile(`^(inet6:)?kube-router-(local-ips|svip|svip-prt|service-ips|` +
		`ipvs-services|ipvs-lb-health|node-mac)$`)
)

// tableOf returns the proxy that has the whole table, or "".
func tableOf(k leftover.Key) string {
	switch k.String() {
	case "ip kube-proxy", "ip6 kube-proxy":
		return KubeProxy
	case "ip k8s_svc", "ip6 k8s_svc6":
		return KPNG
	}
	return ""
}

// chainOf returns the proxy that has the chain of a table of iptables, or "".
func chainOf(table, chain string) string {
	if !strings.HasPrefix(chain, "KUBE-") {
		return ""
	}
	switch {
	case table == "nat" && natChain.MatchString(chain), table == "filter" && filterChain.MatchString(chain),
		table == "mangle" && chain == canary:
		return KubeProxy
	case table == "nat" && chain == "KUBE-ROUTER-HAIRPIN", table == "filter" && chain == "KUBE-ROUTER-SERVICES":
		return KubeRouter
	}
	return ""
}

// marker returns the proxy whose rules translate if the chain is there, or "". Other chains may be the
// kubelet's, which made some of the same names up to 1.27.
func marker(table, chain string) string {
	switch {
	case table == "nat" && (chain == "KUBE-SERVICES" || chain == "KUBE-NODEPORTS" || chain == "KUBE-NODE-PORT"):
		return KubeProxy
	case chainOf(table, chain) == KubeRouter:
		return KubeRouter
	}
	return ""
}

// linkOf returns the proxy that makes an interface of that name, or "".
func linkOf(name string) string {
	switch name {
	case ipvsLink:
		return KubeProxy
	case dummyLink:
		return KubeRouter
	}
	return ""
}

// networks are pod networks that can have a service proxy of their own, by an interface that they make.
func networks() map[string]string {
	return map[string]string{"cilium_host": "Cilium", "bpfin.cali": "Calico's eBPF data plane",
		"antrea-gw0": "Antrea", "ovn-k8s-mp0": "OVN-Kubernetes"}
}

// iptables reports whether a table may be one of iptables that a proxy writes to.
func iptables(k leftover.Key) bool {
	return (k.Family == "ip" || k.Family == "ip6") && (k.Name == "nat" || k.Name == "filter" || k.Name == "mangle")
}

// Reads reports whether an Inventory needs the jumps of a chain: those of chains that stay, to know which
// lead into chains that go, and those of KUBE-SERVICES for Marks.
func Reads(t leftover.Key, chain string) bool {
	return iptables(t) && (chainOf(t.Name, chain) == "" || chain == "KUBE-SERVICES")
}

// ServiceLinks are the interfaces on which other proxies keep the addresses of Services.
func ServiceLinks() []string { return []string{ipvsLink, dummyLink} }
