// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// What a Service asks of IPVS is in its routes where IPVS serves, and a finding elsewhere.
func TestASchedulerIsServedByIPVSAndNamedElsewhere(t *testing.T) {
	vip := netip.MustParseAddr("10.96.0.10")
	front := program.Front{Addr: vip, Protocol: inet.TCP, Port: 80}
	for _, tt := range []struct {
		scheduler string
		options   uint8
		want      string // of the route with IPVS
		findings  string // without, by severity and annotation
	}{
		{"", 0, "scheduler rr", ""},
		{"rr", 0, "scheduler rr", ""},
		{"lc", 0, "scheduler lc", "error scheduler"},
		{"mh", 3, "scheduler mh+fallback+port", "warning schedflags, error scheduler"},
		{"", 4, "scheduler rr+third", "warning schedflags"},
	} {
		s := &cluster.Service{Key: cluster.Key{Namespace: "shop", Name: "web"}, ClusterIPs: []netip.Addr{vip},
			Ports: []cluster.ServicePort{{Protocol: cluster.TCP, Port: 80}}, Scheduler: tt.scheduler, SchedulerOptions: tt.options}
		for _, ipvs := range []bool{true, false} {
			x := NewIndex(Settings{Node: "n1", IPVS: ipvs})
			x.apply(&cluster.ServiceDelta{Services: []cluster.Change[cluster.Service]{{New: s}}})
			want, wantFound := "scheduler rr", tt.findings
			if ipvs {
				want, wantFound = tt.want, ""
			}
			r, _ := x.Model().IPv4.Route(front)
			if got := r.Schedule.String(); got != want {
				t.Errorf("%q %d, IPVS %t: got %s, want %s", tt.scheduler, tt.options, ipvs, got, want)
			}
			var found []string
			for _, d := range x.Diagnostics() {
				_, name, _ := strings.Cut(strings.TrimSuffix(d.Field, "]"), "kube-router.io/service.")
				found = append(found, d.Severity.String()+" "+name)
				if !strings.Contains(d.Cure, "--service-proxy-backend=ipvs") {
					t.Errorf("%s: the cure is %q", d.Field, d.Cure)
				}
			}
			if got := strings.Join(found, ", "); got != wantFound {
				t.Errorf("%q %d, IPVS %t: findings %q, want %q", tt.scheduler, tt.options, ipvs, got, wantFound)
			}
		}
	}
}
