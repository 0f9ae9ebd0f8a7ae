// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

// A further hardware address is bound to the pod's port like its own, with each of the
// pod's addresses. What another pod has or asks for is nobody's.
func TestFurtherHardwareAddressesBelongToOnePod(t *testing.T) {
	p := letting(nil, pod("10.0.0.1", "a"), pod("10.0.0.2", "b"), pod("10.0.0.3", "c"), pod("10.0.0.9", "a"))
	s := newScene(Options{})
	own := func(last byte) inet.Hardware { return inet.Hardware{2, 5: last} }
	for i, port := range []string{"port1", "port2", "", "port1"} {
		s.w.Paths[p.Pods[i].Addr] = inet.Path{Index: 3, Link: "cni0", Bridge: true, Port: port,
			Hardware: own(p.Pods[i].Addr.As4()[3] % 8)}
	}
	extra := func(last byte) inet.Hardware { return inet.Hardware{0x52, 5: last} }
	s.w.Hardware = map[string][]inet.Hardware{
		"shop/a": {extra(1), extra(2), own(2), own(1), extra(7)}, "shop/b": {extra(2)}, "shop/c": {extra(3)}}
	s.w.HardwareOwners = map[inet.Hardware]string{extra(7): "the interface cni0", own(1): "shop/a"}
	out := s.looked(p).commit(p)
	var got []string
	for _, at := range out.Node.Ported {
		got = append(got, at.Port+" "+at.Hardware.String()+" "+at.Addr.String())
	}
	slices.Sort(got)
	want := []string{" 02:00:00:00:00:03 10.0.0.3", "port1 02:00:00:00:00:01 10.0.0.1",
		"port1 02:00:00:00:00:01 10.0.0.9",
		"port1 52:00:00:00:00:01 10.0.0.1", "port1 52:00:00:00:00:01 10.0.0.9", "port2 02:00:00:00:00:02 10.0.0.2"}
	if !slices.Equal(got, want) {
		t.Errorf("ports have\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	said := ""
	for _, problem := range out.Problems {
		if problem.Subject == "pods with one hardware address" {
			said = problem.Text
		}
	}
	if strings.Contains(said, "00:00:00:00:00:00") || strings.Contains(said, "02:00:00:00:00:01") {
		t.Errorf("said is %q", said)
	}
	for _, part := range []string{"52:00:00:00:00:02 (shop/a, shop/b)", "02:00:00:00:00:02 (shop/a, shop/b)",
		"52:00:00:00:00:07 (shop/a, the interface cni0)"} {
		if !strings.Contains(said, part) {
			t.Errorf("said is %q, want %s", said, part)
		}
	}
}
