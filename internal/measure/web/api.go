// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// api writes to the API server. The usual clientset would do it too, and makes
// podwall-lab more than twice as large.
type api struct{ core, discovery, networking *rest.RESTClient }

// object is what all API objects have.
type object interface {
	runtime.Object
	metav1.Object
}

func newAPI(config *rest.Config) (a api, err error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), networkingv1.AddToScheme(scheme)); err != nil {
		return a, fmt.Errorf("registering the API's types: %w", err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return a, fmt.Errorf("making a client of the API server: %w", err)
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	open := func(path string, gv schema.GroupVersion) *rest.RESTClient {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer, c.ContentType = path, &gv, codecs, runtime.ContentTypeProtobuf
		one, openErr := rest.RESTClientForConfigAndClient(c, client)
		err = errors.Join(err, openErr)
		return one
	}
	a.core = open("/api", corev1.SchemeGroupVersion)
	a.discovery = open("/apis", discoveryv1.SchemeGroupVersion)
	a.networking = open("/apis", networkingv1.SchemeGroupVersion)
	return a, err
}

// create writes a new object.
func create(ctx context.Context, c *rest.RESTClient, resource string, o object) error {
	namespaced := o.GetNamespace() != ""
	err := c.Post().NamespaceIfScoped(o.GetNamespace(), namespaced).Resource(resource).Body(o).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("writing %s %s: %w", resource, o.GetName(), err)
	}
	return nil
}

// createWhole writes a new object with its status. It needs two writes: the
// server drops the status of the first.
func createWhole(ctx context.Context, c *rest.RESTClient, resource string, o object) error {
	if err := create(ctx, c, resource, o); err != nil {
		return err
	}
	namespaced := o.GetNamespace() != ""
	err := c.Put().NamespaceIfScoped(o.GetNamespace(), namespaced).Resource(resource).Name(o.GetName()).SubResource("status").Body(o).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("writing the status of %s %s: %w", resource, o.GetName(), err)
	}
	return nil
}
