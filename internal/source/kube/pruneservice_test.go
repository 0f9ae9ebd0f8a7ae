// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster/convert"
)

// fullMeta has what every object has, and some of what decides about Services, by chance.
func fullMeta(r *rand.Rand) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u", ResourceVersion: "7", GenerateName: "web-", Generation: 3,
		CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)), Finalizers: []string{"f"},
		OwnerReferences: []metav1.OwnerReference{{Name: "web"}}, Labels: map[string]string{"app": "web"},
		Annotations:   map[string]string{"note": strings.Repeat("x", 3000)},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)}}}
	for _, set := range []func(){
		func() { m.Labels[discoveryv1.LabelServiceName] = "web" },
		func() { m.Labels[discoveryv1.LabelServiceName] = "" },
		func() { m.Annotations[corev1.EndpointsLastChangeTriggerTime] = "2026-11-30T12:00:00.5Z" },
		func() { m.Annotations["kube-router.io/service.local"] = "" },
		func() { m.Annotations["kube-router.io/service.dsr"] = "tunnel" },
		func() { m.CreationTimestamp = metav1.Time{} },
	} {
		if r.IntN(2) == 0 {
			set()
		}
	}
	for _, label := range []string{corev1.IsHeadlessService, convert.LabelProxyName} {
		if r.IntN(8) == 0 {
			m.Labels[label] = ""
		}
	}
	return m
}

func fullService(r *rand.Rand) *corev1.Service {
	local, mode := corev1.ServiceInternalTrafficPolicyLocal, corev1.LoadBalancerIPModeProxy
	seconds := int32(60)
	s := &corev1.Service{ObjectMeta: fullMeta(r)}
	s.Spec = corev1.ServiceSpec{ClusterIP: "10.96.0.1", Type: corev1.ServiceTypeLoadBalancer,
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}}}
	for _, set := range []func(){
		func() { s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00::1"} },
		func() { s.Spec.Type = corev1.ServiceTypeNodePort },
		func() { s.Spec.ExternalIPs = []string{"192.0.2.1", "x"} },
		func() { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
		func() {
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		},
		func() { s.Spec.InternalTrafficPolicy = &local },
		func() { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal },
		func() { s.Spec.HealthCheckNodePort = 31000 },
		func() { s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} },
		func() { s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.7"}} },
		func() {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.8", IPMode: &mode}, {IP: "192.0.2.9"}}
		},
	} {
		if r.IntN(2) == 0 {
			set()
		}
	}
	return s
}

func fullSlice(r *rand.Rand) *discoveryv1.EndpointSlice {
	name, node, protocol, app, zone, host := "http", "n1", corev1.ProtocolTCP, "http", "z", "web-0"
	port := int32(8080)
	s := &discoveryv1.EndpointSlice{ObjectMeta: fullMeta(r), AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol, AppProtocol: &app}}}
	for range r.IntN(4) {
		e := discoveryv1.Endpoint{Addresses: []string{"10.0.0.1", "10.0.0.2"}, Zone: &zone, Hostname: &host,
			DeprecatedTopology: map[string]string{"a": "b"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-0"}}
		yes, no := true, false
		for _, set := range []func(){
			func() { e.NodeName = &node },
			func() { e.Conditions.Ready = &no },
			func() { e.Conditions.Serving = &yes },
			func() { e.Conditions.Serving = &no },
			func() { e.Conditions.Terminating = &yes },
			func() { e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}}} },
			func() { e.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: "n1"}}} },
			func() { e.Addresses = []string{"10.0.0.256"} },
		} {
			if r.IntN(3) == 0 {
				set()
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func addrsEqual() cmp.Option { return cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}) }

func TestAPrunedServiceIsConvertedAsTheWholeService(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		s := fullService(r)
		message, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var pruned prunedService
		if err := pruned.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		want, found := convert.Service(s)
		got, same := convert.Service(&pruned.Service)
		if diff := cmp.Diff(want, got, addrsEqual()) + cmp.Diff(found, same); diff != "" {
			t.Fatalf("Service (-whole +pruned):\n%s", diff)
		}
		if pruned.ResourceVersion != "7" || pruned.ManagedFields != nil || pruned.Annotations["note"] != "" || pruned.Labels["app"] != "" {
			t.Fatalf("kept is %+v", pruned.Service)
		}
	}
}

func TestAPrunedSliceIsConvertedAsTheWholeSlice(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		s := fullSlice(r)
		message, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var pruned prunedSlice
		if err := pruned.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		want, found := convert.EndpointSlice(s)
		got, same := convert.EndpointSlice(&pruned.EndpointSlice)
		if diff := cmp.Diff(want, got, addrsEqual()) + cmp.Diff(found, same); diff != "" {
			t.Fatalf("slice (-whole +pruned):\n%s", diff)
		}
		if pruned.ResourceVersion != "7" || pruned.ManagedFields != nil || pruned.Annotations["note"] != "" || pruned.Labels["app"] != "" {
			t.Fatalf("kept is %+v", pruned.EndpointSlice)
		}
		for _, e := range pruned.Endpoints {
			if e.TargetRef != nil || e.Zone != nil || e.Hostname != nil || e.DeprecatedTopology != nil {
				t.Fatalf("kept is %+v", e)
			}
		}
	}
}

// FuzzPruneSlice looks for messages that pruning breaks, as FuzzPrune does.
func FuzzPruneSlice(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		if message, err := fullSlice(r).Marshal(); err == nil {
			f.Add(message)
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var whole discoveryv1.EndpointSlice
		if whole.Unmarshal(message) != nil {
			_ = new(prunedSlice).Unmarshal(message) // must not panic
			return
		}
		var pruned prunedSlice
		if err := pruned.Unmarshal(message); err != nil {
			t.Fatalf("upstream reads it, pruning says %v", err)
		}
		want, _ := convert.EndpointSlice(&whole)
		got, _ := convert.EndpointSlice(&pruned.EndpointSlice)
		if diff := cmp.Diff(want, got, addrsEqual()); diff != "" {
			t.Errorf("slice (-whole +pruned):\n%s", diff)
		}
	})
}

// The end of a list is known by an annotation.
func TestTheEndOfAListIsKnownOfPrunedServices(t *testing.T) {
	end := map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	service, err := (&corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: end}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	slice, err := (&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Annotations: end}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var a prunedService
	if err := a.Unmarshal(service); err != nil || !cmp.Equal(a.Annotations, end) {
		t.Errorf("of a Service is kept %v, %v", a.Annotations, err)
	}
	var b prunedSlice
	if err := b.Unmarshal(slice); err != nil || !cmp.Equal(b.Annotations, end) {
		t.Errorf("of a slice is kept %v, %v", b.Annotations, err)
	}
}

// A slice is decoded often: at each change of one of its hundred endpoints.
func BenchmarkDecodeASlice(b *testing.B) {
	r := rand.New(rand.NewPCG(9, 9))
	s := fullSlice(r)
	for len(s.Endpoints) < 100 {
		s.Endpoints = append(s.Endpoints, fullSlice(r).Endpoints...)
	}
	message, err := s.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("pruned", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := new(prunedSlice).Unmarshal(message); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := new(discoveryv1.EndpointSlice).Unmarshal(message); err != nil {
				b.Fatal(err)
			}
		}
	})
}
