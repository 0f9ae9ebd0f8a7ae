// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podwall/podwall/internal/cluster"
)

// apiPod makes a pod as a decoder would: no memory shared with other pods.
func apiPod(i int) *corev1.Pod {
	app := fmt.Sprintf("app-%d", i%500)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("%s-7d4b9c-%05d", app, i),
			UID: types.UID(fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)),
			Labels: map[string]string{
				"app.kubernetes.io/name": app, "pod-template-hash": fmt.Sprintf("%x", 7777+i%500),
				"tier": fmt.Sprintf("t%d", i%3),
			},
			Annotations: map[string]string{"note": fmt.Sprintf("a long text %0200d", i)},
		},
		Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("node-%d", i%1000),
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: fmt.Sprintf("http%d", i%2),
				ContainerPort: 80}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{
			{IP: fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)}}},
	}
}

func TestSharingChangesNoPod(t *testing.T) {
	in := NewInterner()
	for i := range 3000 {
		if got, want := in.Pod(apiPod(i)), Pod(apiPod(i)); !got.Equal(want) {
			t.Fatalf("shared %+v, alone %+v", got, want)
		}
	}
}

func TestEqualPodsShareMemory(t *testing.T) {
	in := NewInterner()
	a, b := in.Pod(apiPod(7)), in.Pod(apiPod(3007))
	if &a.Labels[0] != &b.Labels[0] {
		t.Error("label sets are not shared")
	}
	if a.Declared != b.Declared {
		t.Error("ports are not shared")
	}
	if unsafe.StringData(a.Key.Namespace) != unsafe.StringData(b.Key.Namespace) {
		t.Error("namespaces are not shared")
	}
}

func TestSharingKeepsLookAlikesApart(t *testing.T) {
	in := NewInterner()
	one := in.labelSet(map[string]string{"a": "bc"})
	two := in.labelSet(map[string]string{"ab": "c"})
	if one.Get("a") != "bc" || two.Get("ab") != "c" {
		t.Errorf("%s and %s were mixed up", one, two)
	}
	tcp := in.declared([]cluster.NamedPort{{Name: "dns", Protocol: cluster.TCP, Port: 53}}, nil)
	udp := in.declared([]cluster.NamedPort{{Name: "dns", Protocol: cluster.UDP, Port: 53}}, nil)
	if tcp.Ports[0].Protocol != cluster.TCP || udp.Ports[0].Protocol != cluster.UDP {
		t.Errorf("%v and %v were mixed up", tcp, udp)
	}
}

func TestInternerForgets(t *testing.T) {
	in := NewInterner()
	for i := range 5 * generation {
		in.text(fmt.Sprint(i))
		in.text("always in use")
	}
	if n := len(in.texts.young) + len(in.texts.old); n > 2*generation {
		t.Errorf("%d texts are remembered", n)
	}
	in.key = []byte("always in use")
	if _, ok := in.texts.get(in.key); !ok {
		t.Error("a text that is in use was forgotten")
	}
}

// TestPodMemory guards the bar of 300 bytes for a remote pod, of which the
// store's own map entry takes about 60.
func TestPodMemory(t *testing.T) {
	const count, limit = 50_000, 240
	pods := make([]*cluster.Pod, count)
	in := NewInterner()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range pods {
		pods[i] = in.Pod(apiPod(i))
	}
	in = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / count
	runtime.KeepAlive(pods)
	t.Logf("%d bytes a pod", each)
	if each > limit {
		t.Errorf("a pod takes %d bytes, limit is %d", each, limit)
	}
}

func BenchmarkPod(b *testing.B) {
	in := NewInterner()
	p := apiPod(1)
	b.ReportAllocs()
	for b.Loop() {
		in.Pod(p)
	}
}

func TestWhatIsForgottenStaysAsItWas(t *testing.T) {
	in := NewInterner().OnNode("node-1")
	before := in.Pod(apiPod(7))
	in.Forget()
	after := in.Pod(apiPod(7))
	if !before.Equal(after) || after.UID != "" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if &before.Labels[0] == &after.Labels[0] {
		t.Error("nothing was forgotten")
	}
	if next := in.Pod(apiPod(3007)); &next.Labels[0] != &after.Labels[0] {
		t.Error("pods that come later do not share")
	}
}
