// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryAnnotationIsServedOrNamed(t *testing.T) {
	tests := []struct {
		name, value string
		want        Service
		found       string // a word of the finding; empty for none
		lost        bool
	}{
		{"local", "", Service{ExternalLocal: true}, "", false},
		{"local", "false", Service{ExternalLocal: true}, "", false},
		{"skiplbips", "true", Service{SkipLoadBalancer: true}, "", false},
		{"hairpin", "", Service{}, "", false},
		{"hairpin.externalips", "", Service{}, "", false},
		{"advertise.clusterip", "true", Service{}, "", false},
		{"advertise.externalip", "true", Service{}, "", false},
		{"advertise.loadbalancerip", "false", Service{}, "", false},
		{"scheduler", "rr", Service{Scheduler: "rr"}, "", false},
		{"scheduler", "lc", Service{Scheduler: "lc"}, "", false},
		{"scheduler", "wlc", Service{}, `no scheduler "wlc"`, true},
		{"scheduler", strings.Repeat("x", 1000), Service{}, "xxx", true},
		{"schedflags", "flag-1", Service{Options: 1}, "", false},
		{"schedflags", "flag-3, mh-port,", Service{Options: 6}, "", false},
		{"schedflags", "sh-fallback,flag-4", Service{Options: 1}, `no flag "flag-4"`, true},
		{"dsr", "tunnel", Service{}, "direct server return", true},
		{"Local", "", Service{}, "no such annotation", false},
	}
	for _, tt := range tests {
		got, found := Read(map[string]string{"kube-router.io/service." + tt.name: tt.value, "kube-router.io/peers": "x", "a": "b"})
		if got != tt.want || len(found) > 0 != (tt.found != "") {
			t.Errorf("%s: %+v, %v, want %+v and %q", tt.name, got, found, tt.want, tt.found)
			continue
		}
		for _, f := range found {
			if f.Annotation != "kube-router.io/service."+tt.name || !strings.Contains(f.Message, tt.found) || f.Lost != tt.lost ||
				f.Cure == "" || len(f.Message) > 200 {
				t.Errorf("%s: %+v, want %q, lost %t", tt.name, f, tt.found, tt.lost)
			}
		}
	}
}

func TestAnnotationsTogether(t *testing.T) {
	s, found := Read(map[string]string{Prefix + "skiplbips": "", Prefix + "local": "", Prefix + "scheduler": "sh", Prefix + "dsr": "tunnel"})
	var names []string
	for _, f := range found {
		names = append(names, strings.TrimPrefix(f.Annotation, Prefix))
	}
	want := Service{ExternalLocal: true, SkipLoadBalancer: true, Scheduler: "sh"}
	if s != want || !slices.Equal(names, []string{"dsr"}) {
		t.Errorf("%+v, %v", s, found)
	}
	if s, found := Read(map[string]string{"kube-router.io/pod-cidr": "x"}); s != (Service{}) || found != nil {
		t.Errorf("without one: %+v, %v", s, found)
	}
}
