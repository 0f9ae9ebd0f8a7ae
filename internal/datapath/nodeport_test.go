// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"strings"
	"testing"
)

// A pod bridge that the node uses through a pair of interfaces is reported; it blocks nothing. A bridge
// without pods is not reported.
func TestANodeThatSpeaksOnABridgeByAPairIsNamed(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		for _, bridge := range []string{"br0", "other"} {
			for _, command := range []string{"link add " + bridge + " type bridge", "link set " + bridge + " up",
				"link add p-" + bridge + " type veth peer name n-" + bridge, "link set p-" + bridge + " master " + bridge + " up"} {
				run(t, "ip", strings.Fields(command)...)
			}
		}
		run(t, "ip", "addr", "add", "10.244.1.1/24", "dev", "br0")
		found := 0
		for _, p := range apply(t, open(t, Options{}), isolated(first)).Problems {
			if strings.HasPrefix(p.Subject, "node's port") {
				found++
				if !strings.Contains(p.Text, "p-br0") || p.Blocking || p.Cure == "" {
					t.Errorf("%+v", p)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d bridges are named, want 1", found)
		}
	})
}
