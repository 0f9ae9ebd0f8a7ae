// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/podwall/podwall/internal/cluster"
)

const noPort = "this port entry matches nothing"

// ports reads the ports of a rule. The API: "If this field is empty or missing,
// this rule matches all ports." A list whose entries were all dropped matches
// none.
func (r *reader) ports(field string, list []networkingv1.NetworkPolicyPort) cluster.Ports {
	if len(list) == 0 {
		return cluster.Ports{Any: true}
	}
	var ports cluster.Ports
	r.each(field, len(list), func(i int) {
		if p, ok := r.port("", &list[i]); ok {
			ports.List = appendOf(len(list), ports.List, p)
		}
	})
	return ports
}

// port reads one entry. The API about the protocol: "If not specified, this field defaults to TCP";
// about the port: "If this field is not provided, this matches all port names and numbers", which
// means those of the protocol.
func (r *reader) port(field string, raw *networkingv1.NetworkPolicyPort) (cluster.Port, bool) {
	p := cluster.Port{Protocol: cluster.TCP}
	understood := true
	if raw.Protocol != nil {
		if p.Protocol, understood = cluster.ParseProtocol(string(*raw.Protocol)); !understood {
			r.fail(field+".protocol", fmt.Sprintf("unknown protocol %q: %s", *raw.Protocol, noPort),
				"write TCP, UDP or SCTP")
		}
	}
	switch {
	case raw.Port != nil && raw.Port.Type == intstr.String:
		understood = r.named(field, raw, &p) && understood
	case raw.Port != nil:
		understood = r.numbered(field, raw, &p) && understood
	case raw.EndPort != nil:
		understood = false
		r.fail(field+".endPort", "endPort stands without port: "+noPort, "set port to the first port of the range")
	default:
		p.Any = true
	}
	return p, understood
}

// named reads a port name. endPort "cannot be defined … if the port field is
// defined as a named (string) port".
func (r *reader) named(field string, raw *networkingv1.NetworkPolicyPort, p *cluster.Port) bool {
	name := raw.Port.StrVal
	if name == "" {
		r.fail(field+".port", "the port is an empty text: "+noPort,
			"write a number or a name, or leave port out to mean every port")
		return false
	}
	if problems := validation.IsValidPortName(name); len(problems) > 0 {
		r.fail(field+".port", fmt.Sprintf("%q is no port name (%s): %s", name, problems[0], noPort),
			"write a number without quotes, or a name as containers declare it")
		return false
	}
	if raw.EndPort != nil {
		r.fail(field+".endPort", "endPort stands with a named port: "+noPort,
			"use the number as port, or remove endPort")
		return false
	}
	p.Name = name
	return true
}

// numbered reads a port or a range: "The endPort must be equal or greater than
// port."
func (r *reader) numbered(field string, raw *networkingv1.NetworkPolicyPort, p *cluster.Port) bool {
	first, last := raw.Port.IntVal, raw.Port.IntVal
	if !r.number(field+".port", first) {
		return false
	}
	if raw.EndPort != nil {
		last = *raw.EndPort
		if !r.number(field+".endPort", last) {
			return false
		}
	}
	if last < first {
		r.fail(field+".endPort", fmt.Sprintf("endPort %d is below port %d: %s", last, first, noPort),
			"swap them")
		return false
	}
	p.First, p.Last = uint16(first), uint16(last)
	return true
}

func (r *reader) number(field string, n int32) bool {
	if n < 1 || n > 65535 {
		r.fail(field, fmt.Sprintf("port %d is not in 1 to 65535: %s", n, noPort), "write a valid port number")
		return false
	}
	return true
}
