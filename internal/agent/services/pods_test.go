// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/observe"
)

// A Node without ranges of pods is a problem that says for which family, and what is lost; --cluster-cidr gives back
// a part of it.
func TestNodesWithoutRangesOfPods(t *testing.T) {
	ranges := func(list ...string) (all []netip.Prefix) {
		for _, r := range list {
			all = append(all, netip.MustParsePrefix(r))
		}
		return all
	}
	const outside, masquerade = "clients from outside", "no connection to a cluster address is masqueraded"
	for name, tt := range map[string]struct {
		node, cluster []netip.Prefix
		want          []string
		not           []string
	}{
		"none":                 {nil, nil, []string{"of IPv4", "of IPv6", outside, masquerade}, nil},
		"one family":           {ranges("10.244.1.0/24"), nil, []string{"of IPv6", outside, masquerade}, []string{"of IPv4"}},
		"of the cluster":       {nil, ranges("10.244.0.0/16", "fd00:244::/32"), []string{"of IPv4", "of IPv6", outside}, []string{masquerade}},
		"both":                 {ranges("10.244.1.0/24", "fd00:244:1::/64"), nil, nil, []string{"of IPv"}},
		"both, of the cluster": {ranges("10.244.1.0/24", "fd00:244:1::/64"), ranges("10.244.0.0/16"), nil, []string{"of IPv"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.Options.ClusterPods = tt.cluster
			s.fill("10.244.1.1")
			s.Store.Update(func(tx *cluster.Tx) {
				tx.SetNode(&cluster.Node{Name: "n1", Addrs: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}, PodCIDRs: tt.node})
			})
			s.run()
			s.next()
			s.await("served", func(x observe.Services) bool { return x.Services == 1 })
			text := ""
			for _, p := range s.Observer.Status().Problems {
				if p.Subject == "Services of this node" {
					text = p.Text
				}
				if p.Blocking {
					t.Errorf("%s blocks", p.Subject)
				}
			}
			for _, w := range tt.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q does not say %q", text, w)
				}
			}
			for _, w := range tt.not {
				if strings.Contains(text, w) {
					t.Errorf("%q says %q", text, w)
				}
			}
		})
	}
}
