// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

func TestFurtherAddressesAreReadFromTheAnnotation(t *testing.T) {
	for text, want := range map[string]*cluster.Extra{
		"":    nil,
		" , ": nil,
		"10.0.0.7": {
			Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}},
		"10.0.0.7, fd00::7,52:54:00:AB:00:01, ::ffff:10.0.0.7,": {
			Addrs:    []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")},
			Hardware: []inet.Hardware{{0x52, 0x54, 0, 0xab, 0, 1}}},
		"10.0.0.0/24, fe80::1%eth0, 53:54:00:00:00:01": {Unread: []string{
			`"10.0.0.0/24" is no address and no hardware address`,
			`"fe80::1%eth0" is no address and no hardware address`,
			`"53:54:00:00:00:01" is no address and no hardware address`}},
		"a,b,c,d,e,f,g,10.0.0.7,10.0.0.8": {Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}, Unread: []string{
			`"a" is no address and no hardware address`, `"b" is no address and no hardware address`,
			`"c" is no address and no hardware address`, `"d" is no address and no hardware address`,
			`"e" is no address and no hardware address`, `"f" is no address and no hardware address`,
			`"g" is no address and no hardware address`, "more than 8 entries, the rest is not read"}},
	} {
		got := Pod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{cluster.ExtraAnnotation: text}}}).Extra()
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}
