// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Services are the settings of the service proxy.
type Services struct {
	// ClusterRanges are the ranges from which Services get their cluster addresses.
	ClusterRanges []netip.Prefix
	// ExternalRanges and LoadBalancerRanges are where Services may have external addresses and those of load
	// balancers, unless AnyExternal is set.
	ExternalRanges, LoadBalancerRanges []netip.Prefix
	AnyExternal                        bool
	// ClusterPods are the ranges of all pods; without any, those of this node's pods.
	ClusterPods []netip.Prefix
	// EveryAddress has node ports at all addresses of the node.
	EveryAddress bool
	// MasqueradeAll masquerades every connection to a cluster address.
	MasqueradeAll bool
	// HealthPort is the TCP port at which load balancers ask for this node; 0 means off.
	HealthPort uint16
	// Backend is what chooses endpoints: BackendNFTables or BackendIPVS.
	Backend string
	// TCPTimeout, TCPFinTimeout and UDPTimeout are after which time without packets IPVS forgets connections:
	// open ones of TCP, those that end, and flows of UDP. 0 leaves what the kernel has.
	TCPTimeout, TCPFinTimeout, UDPTimeout time.Duration
	// TakeOver removes what another service proxy left, once Services are served.
	TakeOver bool
}

// What chooses the endpoints of Services.
const (
	BackendNFTables = "nftables"
	BackendIPVS     = "ipvs"
)

// LoadBalancerListen returns host:port of the page for load balancers, or "" when it is off.
func (c Config) LoadBalancerListen() string { return listen("", c.Services.HealthPort) }

func serviceOptions() []option {
	return []option{
		{name: "service-cluster-ip-range", arg: "RANGE,…",
			help: "Ranges from which Services get their cluster addresses. Packets to an address in them that no " +
				"Service has are dropped. Without it they are routed like others. In kube-router the default is " +
				"10.96.0.0/12.",
			bind: func(c *Config) flag.Value { return prefixes(&c.Services.ClusterRanges) }},
		{name: "service-proxy-backend",
			help: "What chooses the endpoint of a connection. nftables: at random. ipvs: the kernel's IPVS, as " +
				"kube-router.io/service.scheduler says, else in turn; every packet of a Service then costs more. " +
				"What the other one left is removed once Services are served. See docs/services.md.",
			why: "an annotation of one tenant must not change how the Services of all are served. With ipvs " +
				"it can make the kernel load its scheduler: one of ip_vs_lc, ip_vs_sh, ip_vs_dh and " +
				"ip_vs_mh, nothing else.",
			bind: func(c *Config) flag.Value { return oneOf(&c.Services.Backend, BackendNFTables, BackendIPVS) }},
		{name: flagTCP, arg: "DURATION",
			help: "With --service-proxy-backend=ipvs: after which time without packets IPVS forgets an open TCP " +
				"connection, which then fails. 0 leaves what the kernel has: 15m, if no other program set it.",
			bind: func(c *Config) flag.Value { return duration(&c.Services.TCPTimeout) }},
		{name: flagTCPFin, arg: "DURATION",
			help: "The same for a TCP connection that one end has closed. In the kernel 2m.",
			bind: func(c *Config) flag.Value { return duration(&c.Services.TCPFinTimeout) }},
		{name: flagUDP, arg: "DURATION",
			help: "The same for the packets from one port of a UDP client, whose next one then chooses an endpoint " +
				"again. In the kernel 5m.",
			bind: func(c *Config) flag.Value { return duration(&c.Services.UDPTimeout) }},
		{name: "service-external-ip-range", arg: "RANGE,…",
			help: "Ranges in which Services may have spec.externalIPs. Others are not served, with a finding, unless " +
				"--strict-external-ip-validation=false.",
			bind: func(c *Config) flag.Value { return prefixes(&c.Services.ExternalRanges) }},
		{name: "loadbalancer-ip-range", arg: "RANGE,…",
			help: "The same for addresses of load balancers.",
			bind: func(c *Config) flag.Value { return prefixes(&c.Services.LoadBalancerRanges) }},
		{name: "strict-external-ip-validation",
			help: "Serve external addresses and those of load balancers in these two ranges only; without a range " +
				"none. False serves any that is no address of a node, a pod or another Service: whoever may create " +
				"Services can then take the traffic to any address outside of the cluster.",
			bind: func(c *Config) flag.Value { return opposite(&c.Services.AnyExternal) }},
		{name: "nodeport-bindon-all-ip",
			help: "Serve node ports at every address of the node but loopback and link-local ones. False: at the " +
				"first address of each family that the Node object has.",
			bind: func(c *Config) flag.Value { return boolean(&c.Services.EveryAddress) }},
		{name: "masquerade-all",
			help: "Masquerade every connection to a cluster address. False: only those of clients that are no pods.",
			bind: func(c *Config) flag.Value { return boolean(&c.Services.MasqueradeAll) }},
		{name: "cluster-cidr", arg: "RANGE,…",
			help: "Ranges of the pods of the whole cluster. Connections of others to cluster addresses are " +
				"masqueraded. Without it the ranges of this node's pods are taken, which its Node object has " +
				"(spec.podCIDRs).",
			why: "where a pod network does not use spec.podCIDRs, no object says which addresses pods get. " +
				"kube-proxy has the flag too.",
			bind: func(c *Config) flag.Value { return prefixes(&c.Services.ClusterPods) }},
		{name: "load-balancer-health-port", arg: "PORT",
			help: "TCP port at which load balancers ask whether this node is to get traffic for Services, at every " +
				"address: /healthz as kube-proxy has it, 503 while the node is leaving; 0 for none.",
			why: "load balancers are set up with kube-proxy's port 10256, and only you know when they ask at " +
				"another one.",
			bind: func(c *Config) flag.Value { return port(&c.Services.HealthPort) }},
		{name: "takeover",
			help: "Remove the rules that another service proxy left on this node, once Services are served, and do " +
				"not wait until they are gone. It removes nothing while that proxy is seen to run: stop it first. " +
				"See docs/services.md.",
			why: "a proxy whose rules are there may be about to start again, and only you know that it is gone for " +
				"good.",
			bind: func(c *Config) flag.Value { return boolean(&c.Services.TakeOver) }},
	}
}

// idle returns what to say about a setting of the service proxy, or of its IPVS, where that does not run; nil about
// other flags.
func (c Config) idle(name string) *Notice {
	ours := func(o option) bool { return o.name == name }
	switch ofIPVS := slices.Contains([]string{flagTCP, flagTCPFin, flagUDP}, name); {
	case !c.RunServiceProxy && slices.ContainsFunc(serviceOptions(), ours):
		return &Notice{Flag: name, Text: "not needed: it configures the service proxy, which does not run here"}
	case ofIPVS && c.Services.Backend != BackendIPVS:
		return &Notice{Flag: name, Text: "not needed: it configures IPVS, and --service-proxy-backend is " +
			c.Services.Backend}
	}
	return nil
}

// The flags for the timeouts of IPVS.
const (
	flagTCP    = "service-tcp-timeout"
	flagTCPFin = "service-tcpfin-timeout"
	flagUDP    = "service-udp-timeout"
)

// longestTimeout is the longest one that the kernel takes: its number of ticks, a thousand a second at most, has 31
// bits.
const longestTimeout = math.MaxInt32 / 1000 * time.Second

func (c Config) checkTimeouts() error {
	var problems []error
	s := c.Services
	for name, d := range map[string]time.Duration{flagTCP: s.TCPTimeout, flagTCPFin: s.TCPFinTimeout,
		flagUDP: s.UDPTimeout} {
		if d < 0 || d%time.Second != 0 || d > longestTimeout {
			problems = append(problems, fmt.Errorf("--%s=%s: must be a number of seconds up to %s, or 0 for what the "+
				"kernel has", name, shortDuration(d), longestTimeout))
		}
	}
	return errors.Join(problems...)
}

// prefixes reads ranges of addresses with commas between them. They are masked: kube-router takes ranges with
// bits set behind the prefix, too.
func prefixes(target *[]netip.Prefix) value[[]netip.Prefix] {
	parse := func(s string) (list []netip.Prefix, err error) {
		for entry := range strings.SplitSeq(s, ",") {
			if entry = strings.TrimSpace(entry); entry == "" {
				continue
			}
			p, err := netip.ParsePrefix(entry)
			switch {
			case err != nil:
				return nil, fmt.Errorf("%q is no range; write for example 10.96.0.0/12 or fd00:96::/112", entry)
			case p.Addr().Is4In6():
				return nil, fmt.Errorf("%q is an IPv4 address in IPv6 form; write the IPv4 address", entry)
			}
			list = append(list, p.Masked())
		}
		return list, nil
	}
	format := func(list []netip.Prefix) string {
		words := make([]string, len(list))
		for i, p := range list {
			words[i] = p.String()
		}
		return strings.Join(words, ",")
	}
	return value[[]netip.Prefix]{target, parse, format, false}
}

// opposite is a switch that is on while the target is off.
func opposite(target *bool) value[bool] {
	v := boolean(target)
	read := v.parse
	v.parse = func(s string) (bool, error) {
		on, err := read(s)
		return !on, err
	}
	v.format = func(off bool) string { return strconv.FormatBool(!off) }
	return v
}
