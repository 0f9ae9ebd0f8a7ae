// SPDX-License-Identifier: Apache-2.0

// Package kube is the source that reads the Kubernetes API: it lists and
// watches namespaces, pods and network policies and keeps a cluster.Store equal
// to them. It owns the connection, the retries and what is said about them.
//
// Each object is converted when it arrives (package convert) and then dropped:
// a decoded pod takes more than a kilobyte, what is kept of it less than a
// quarter. That is why this is client-go's Reflector with a store of our own,
// and no informer.
//
// It stands at the start of the data path, beside package manifest, and is the
// only package that imports client-go. It never writes to the API.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/convert"
)

// Source keeps a store equal to what the API says.
type Source struct {
	cfg  *rest.Config
	log  *slog.Logger
	node string
}

// New returns a source for the API server of cfg. It does no I/O and does not
// change cfg.
func New(cfg *rest.Config, log *slog.Logger) *Source { return &Source{cfg: cfg, log: log} }

// OnNode returns the source, for an agent of that node: pods of other nodes are
// delivered without UID, which nobody asks for there.
func (s *Source) OnNode(name string) *Source {
	s.node = name
	return s
}

// watched is one kind of object and where it is kept.
type watched struct {
	gv       schema.GroupVersion
	resource string
	example  runtime.Object
	store    storage
}

// storage is a sink, of whatever it converts.
type storage interface {
	cache.ReflectorStore
	stream(w watch.Interface) watch.Interface
	restart()
}

// Run fills the store and follows all changes until ctx ends; then it returns
// nil, with all its goroutines finished. A server that cannot be reached, or
// that refuses, is logged and tried again for ever: it is for the caller to
// lose patience. The error is about cfg.
func (s *Source) Run(ctx context.Context, store *cluster.Store) error {
	client, err := newHTTPClient(s.cfg)
	if err != nil {
		return err
	}
	defer utilnet.CloseIdleConnectionsFor(client.Transport)
	var reflectors []*cache.Reflector
	for _, w := range kinds(store, s.node) {
		r, err := s.reflector(client, w)
		if err != nil {
			return err
		}
		reflectors = append(reflectors, r)
	}
	// client-go's own log is silenced: what matters is said by reporter, once.
	quiet := klog.NewContext(ctx, klog.Logger{})
	var running sync.WaitGroup
	for _, r := range reflectors {
		running.Go(func() { r.RunWithContext(quiet) })
	}
	running.Wait()
	return nil
}

func kinds(store *cluster.Store, node string) []watched {
	interner := convert.NewInterner().OnNode(node) // used by the goroutine of the pods only
	return []watched{
		{corev1.SchemeGroupVersion, "namespaces", &corev1.Namespace{}, &sink[*corev1.Namespace, *cluster.Namespace]{
			store: store, kind: cluster.Namespaces, convert: convert.Namespace,
			set:     (*cluster.Tx).SetNamespace,
			remove:  func(tx *cluster.Tx, k cluster.Key) { tx.DeleteNamespace(k.Name) },
			replace: (*cluster.Tx).ReplaceNamespaces,
			key:     func(n *cluster.Namespace) cluster.Key { return cluster.Key{Name: n.Name} },
		}},
		{corev1.SchemeGroupVersion, "pods", &prunedPod{}, &sink[*corev1.Pod, *cluster.Pod]{
			store: store, kind: cluster.Pods, convert: interner.Pod,
			set: (*cluster.Tx).SetPod, remove: (*cluster.Tx).DeletePod, replace: (*cluster.Tx).ReplacePods,
			key:    func(p *cluster.Pod) cluster.Key { return p.Key },
			listed: interner.Forget,
		}},
		{networkingv1.SchemeGroupVersion, "networkpolicies", &networkingv1.NetworkPolicy{}, newPolicySink(store)},
	}
}

func (s *Source) reflector(client *http.Client, w watched) (*cache.Reflector, error) {
	c, err := restClient(s.cfg, client, w.gv)
	if err != nil {
		return nil, err
	}
	lw := &listWatch{
		ListWatch: cache.NewFilteredListWatchFromClient(c, w.resource, "", noFilter),
		store:     w.store,
		report:    newReporter(s.log, w.gv.Group, w.resource, s.cfg.Host),
	}
	return cache.NewReflectorWithOptions(lw, w.example, w.store, cache.ReflectorOptions{
		Name: w.resource, TypeDescription: w.resource, Logger: &klog.Logger{},
	}), nil
}

// errType is a programming error: client-go checks the types.
func errType(obj any) error { return fmt.Errorf("storing an object: unexpected type %T", obj) }
