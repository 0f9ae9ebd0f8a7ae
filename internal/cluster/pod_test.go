// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"testing"
)

// Both witnesses ask Networked, so neither would notice a mistake in it.
func TestPodsWithANetworkOfTheirOwn(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	tests := []struct {
		name string
		pod  *Pod
		want bool
	}{
		{"a running pod", &Pod{IPs: ips}, true},
		{"one that is being deleted still runs", &Pod{IPs: ips, Terminating: true}, true},
		{"one that is finished has given its address back", &Pod{IPs: ips, Finished: true}, false},
		{"one on the host's network has the node's address", &Pod{IPs: ips, HostNetwork: true}, false},
		{"one without address", &Pod{}, false},
		{"no pod", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.pod.Networked(); got != tt.want {
				t.Errorf("networked = %t", got)
			}
		})
	}
}

func TestProtocolsAreReadAsTheAPIWritesThem(t *testing.T) {
	for _, p := range Protocols {
		if got, ok := ParseProtocol(p.String()); got != p || !ok {
			t.Errorf("%s is read as %s, %t", p, got, ok)
		}
	}
	for _, text := range []string{"", "tcp", "ICMP", "6", "invalid"} {
		if got, ok := ParseProtocol(text); got != 0 || ok {
			t.Errorf("%q is read as %s, %t", text, got, ok)
		}
	}
}
