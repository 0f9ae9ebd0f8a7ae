// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"fmt"
	"time"
)

// valueKind is the type of a flag's value. Foreign flags have one so that
// parsing goes on behind them, and so that a typing error in one is seen.
type valueKind string

const (
	kindBool     valueKind = "boolean"
	kindDuration valueKind = "duration"
	kindInt      valueKind = "number"
	kindText     valueKind = "text"
)

// foreign is a flag of kube-router (all that version 2.11 has are here or in
// groups) that sets nothing in this program.
type foreign struct {
	name   string
	kind   valueKind
	answer string
	// refused is set for a switch that asks for an effect which this program
	// does not have. Turned on it is an error, since ignoring it would enforce
	// something else than what was asked for; turned off it needs no answer.
	refused bool
}

// newValue returns a value that is checked and forgotten.
func (f foreign) newValue() flag.Value {
	switch f.kind {
	case kindBool:
		return boolean(new(bool))
	case kindDuration:
		return duration(new(time.Duration))
	case kindInt:
		return integer(new(int))
	}
	return text(new(string))
}

// respond returns what to say about the flag: a notice, a problem that stops
// the program, or neither.
func (f foreign) respond(set flag.Value) (*Notice, error) {
	switch {
	case !f.refused:
		return &Notice{Flag: f.name, Text: "not needed: " + f.answer}, nil
	case set.String() == "true":
		return nil, fmt.Errorf("--%s=true: not supported yet: %s", f.name, f.answer)
	}
	return nil, nil
}

func foreignFlags() []foreign {
	var all []foreign
	all = append(all, foreignFirewall()...)
	all = append(all, foreignProxy()...)
	all = append(all, belongingTo("the router, which does not run here", routerFlags())...)
	return append(all, belongingTo("the load-balancer allocator, which does not run here", allocatorFlags())...)
}

func foreignFirewall() []foreign {
	return []foreign{
		{name: "netpol-default-deny", kind: kindBool,
			answer: "a pod that is not programmed yet is closed unless --unknown-pods=open says otherwise"},
		{name: "run-loadbalancer", kind: kindBool, refused: true,
			answer: "there is no load-balancer allocator; leave the flag out"},
		{name: "use-nftables-for-netpol", kind: kindBool,
			answer: "policies are always written to nftables"},
		{name: "enable-pprof", kind: kindBool,
			answer: "no profiling port is ever opened"},
	}
}

// foreignProxy are flags of kube-router's service proxy. Each answer holds for both back ends.
func foreignProxy() []foreign {
	return []foreign{
		{name: "service-node-port-range", kind: kindText,
			answer: "node ports are known from the Services; all other ports of the node are its own"},
		{name: "hairpin-mode", kind: kindBool,
			answer: "a pod always reaches itself through its Service"},
		{name: "ipvs-graceful-termination", kind: kindBool,
			answer: "an endpoint that terminates and still serves always keeps its connections"},
		{name: "ipvs-graceful-period", kind: kindDuration,
			answer: "a terminating endpoint keeps its connections as long as it serves, whatever time that takes"},
		{name: "ipvs-permit-all", kind: kindBool,
			answer: "ports of a cluster address that no Service has are always rejected"},
		{name: "ipvs-sync-period", kind: kindDuration,
			answer: "changes are written at once, and --iptables-sync-period is the period of the verification"},
		{name: "excluded-cidrs", kind: kindText,
			answer: "virtual services of other programs are never changed"},
		{name: "runtime-endpoint", kind: kindText,
			answer: "it is for direct server return, which policies could not judge and which is refused"},
	}
}

// belongingTo completes flags that configure a part which is not here. In
// kube-router they have no effect either while that part is switched off.
func belongingTo(part string, byKind map[valueKind][]string) []foreign {
	var list []foreign
	for _, kind := range []valueKind{kindBool, kindDuration, kindInt, kindText} {
		for _, name := range byKind[kind] {
			list = append(list, foreign{name: name, kind: kind, answer: "it configures " + part})
		}
	}
	return list
}

func routerFlags() map[valueKind][]string {
	return map[valueKind][]string{
		kindBool: {"advertise-cluster-ip", "advertise-external-ip", "advertise-loadbalancer-ip",
			"advertise-pod-cidr", "auto-mtu", "bgp-graceful-restart", "disable-source-dest-check",
			"enable-bfd", "enable-cni", "enable-ibgp", "enable-overlay", "enable-pod-egress",
			"nodes-full-mesh", "override-nexthop"},
		kindDuration: {"bgp-graceful-restart-deferral-time", "bgp-graceful-restart-time", "bgp-holdtime",
			"injected-routes-sync-period", "routes-sync-period"},
		kindInt: {"bfd-desired-min-tx-interval", "bfd-detection-multiplier", "bfd-port",
			"bfd-required-min-rx-interval", "bgp-port", "cluster-asn", "gobgp-admin-port",
			"overlay-encap-port", "peer-router-multihop-ttl"},
		kindText: {"gobgp-admin-address", "overlay-encap", "overlay-type", "peer-router-asns",
			"peer-router-ips", "peer-router-passwords", "peer-router-passwords-file",
			"peer-router-ports", "router-id"},
	}
}

func allocatorFlags() map[valueKind][]string {
	return map[valueKind][]string{
		kindBool:     {"loadbalancer-default-class"},
		kindDuration: {"loadbalancer-sync-period"},
	}
}
