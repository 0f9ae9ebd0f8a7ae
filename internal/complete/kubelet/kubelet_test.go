// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/complete/kubelet"
)

// recorded reads a pod with the status that a kubelet writes, see testdata/README.md.
func recorded(t *testing.T, file string) *corev1.Pod {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{}
	if err := json.Unmarshal(text, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTheStatusHasWhatAKubeletWrites compares the fields, and their values where they do
// not depend on the moment.
func TestTheStatusHasWhatAKubeletWrites(t *testing.T) {
	for _, file := range []string{"pod.json", "requests.json"} {
		t.Run(file, func(t *testing.T) { compare(t, recorded(t, file)) })
	}
}

func compare(t *testing.T, want *corev1.Pod) {
	t.Helper()
	got := want.DeepCopy()
	var host, addrs []netip.Addr
	for _, a := range want.Status.HostIPs {
		host = append(host, netip.MustParseAddr(a.IP))
	}
	for _, a := range want.Status.PodIPs {
		addrs = append(addrs, netip.MustParseAddr(a.IP))
	}
	kubelet.Run(got, host, addrs)
	if diff := cmp.Diff(fields(t, want.Status), fields(t, got.Status)); diff != "" {
		t.Errorf("fields of the status (-kubelet +here):\n%s", diff)
	}
	a, b := want.Status, got.Status
	if a.Phase != b.Phase || a.HostIP != b.HostIP || a.PodIP != b.PodIP || a.QOSClass != b.QOSClass ||
		!cmp.Equal(a.PodIPs, b.PodIPs) || !cmp.Equal(a.HostIPs, b.HostIPs) {
		t.Errorf("status of a kubelet\n%+v, here\n%+v", a, b)
	}
	for i, c := range a.Conditions {
		if d := b.Conditions[i]; c.Type != d.Type || c.Status != d.Status {
			t.Errorf("condition %d is %s %s, of a kubelet %s %s", i, d.Type, d.Status, c.Type, c.Status)
		}
	}
}

// fields returns the paths of all fields, without positions in lists.
func fields(t *testing.T, status corev1.PodStatus) []string {
	t.Helper()
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	var list []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(path+"."+k, x)
			}
		case []any:
			for _, x := range v {
				walk(path+"[]", x)
			}
		default:
			list = append(list, path)
		}
	}
	walk("", tree)
	slices.Sort(list)
	return slices.Compact(list)
}

func TestAPodWithoutAddressesHasNone(t *testing.T) {
	p := &corev1.Pod{}
	kubelet.Run(p, nil, nil)
	if p.Status.PodIP != "" || p.Status.HostIP != "" || p.Status.Phase != corev1.PodRunning {
		t.Errorf("status %+v", p.Status)
	}
}
