// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import "testing"

func TestWhichInterfacesNoPodIsBehind(t *testing.T) {
	for name, c := range map[string]struct {
		device device
		want   bool
	}{
		"a pair of a pod":                {device{kind: "veth", away: true}, false},
		"a pair that the operator names": {device{kind: "veth", away: true, uplink: true, named: true}, false},
		"a pair with the Node's address": {device{kind: "veth", away: true, uplink: true, named: true,
			ofNode: true}, true},
		"a bridge":                               {device{kind: "bridge"}, false},
		"a bridge that leads out":                {device{kind: "bridge", uplink: true, ofNode: true}, false},
		"a tap of a virtual machine":             {device{kind: "tuntap"}, false},
		"a tunnel of OpenVPN with a gateway":     {device{kind: "tuntap", uplink: true}, true},
		"a network card":                         {device{kind: "device"}, true},
		"WireGuard":                              {device{kind: "wireguard"}, true},
		"macvlan":                                {device{kind: "macvlan"}, false},
		"macvlan as an uplink":                   {device{kind: "macvlan", uplink: true}, true},
		"a pair within this namespace":           {device{kind: "veth"}, false},
		"a pair within this namespace, a router": {device{kind: "veth", uplink: true}, true},
	} {
		if got := c.device.elsewhere(); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
