// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
)

// server is the real API server with a real etcd, beside the node.
type server struct{ *apiserver.Server }

func (s server) kubeconfig() string { return s.Kubeconfig }
func (s server) close() error       { return s.Close() }

func (s server) create(ctx context.Context, o listwatch.Object) (time.Time, error) {
	return s.Create(ctx, unwritten(o))
}

func (s server) update(ctx context.Context, o listwatch.Object) (time.Time, error) {
	if p, ok := o.(*networkingv1.NetworkPolicy); ok {
		return s.Replace(ctx, p)
	}
	return s.Relabel(ctx, o)
}

func (s server) remove(ctx context.Context, o listwatch.Object) (time.Time, error) {
	return s.Remove(ctx, o)
}

func (s server) fill(ctx context.Context, sh shape, own []netip.Addr) error {
	var objects []metav1.Object
	for _, o := range sh.objects(own) {
		objects = append(objects, unwritten(o))
	}
	for i := range sh.services {
		app := i % sh.apps()
		objects = append(objects, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: sh.namespaceOf(app),
			Name: fmt.Sprintf("svc-%d", i)}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": fmt.Sprintf("app-%d", app)},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		}})
	}
	return s.Fill(ctx, objects)
}

// unwritten takes away what the API server gives to an object.
func unwritten(o listwatch.Object) metav1.Object {
	o.SetResourceVersion("")
	o.SetUID("")
	o.SetManagedFields(nil)
	return o
}
