// SPDX-License-Identifier: Apache-2.0

// Package kube is the source that reads the Kubernetes API: it lists and
// watches namespaces, pods, network policies and nodes, for a service proxy
// Services and EndpointSlices too, and keeps a cluster.Store equal to them. It owns
// the connection, the retries and what is said about them.
//
// Each object is converted when it arrives (package convert) and then dropped:
// a decoded pod takes more than a kilobyte, what is kept of it less than a
// quarter. That is why this is client-go's Reflector with a store of our own,
// and no informer.
//
// It stands at the start of the data path, next to package manifest, and is the
// only package that imports client-go. It writes nothing to the API but Events.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/source/feed"
)

// Source keeps a store equal to what the API says.
type Source struct {
	cfg     *rest.Config
	log     *slog.Logger
	node    string
	login   *login
	backoff *wait.Backoff        // between tries; nil for client-go's own
	reports map[string]*reporter // by resource; not changed after the start
	notices *notices             // about policies, for their authors
	onPods  *podEvents           // about denied flows of pods

	services bool // Services and EndpointSlices are watched too
}

// New returns a source for the API server of cfg. It does no I/O and does not
// change cfg.
func New(cfg *rest.Config, log *slog.Logger) *Source {
	s := &Source{cfg: cfg, log: log, login: newLogin(log), reports: map[string]*reporter{}, notices: newNotices(log),
		onPods: newPodEvents(log)}
	s.addReporters(kinds(nil, ""))
	return s
}

func (s *Source) addReporters(list []watched) {
	for _, w := range list {
		r := newReporter(s.log, w.gv.Group, w.resource, s.cfg.Host)
		r.refused = s.login.refuse
		s.reports[w.resource] = r
	}
}

// OnNode returns the source, for an agent of that node: pods of other nodes are
// delivered without UID, which no code needs there, and where the Nodes may not
// be listed and watched this one is read alone.
func (s *Source) OnNode(name string) *Source {
	s.node = name
	return s
}

// Announce writes all findings about a policy as an Event on it, soon, unless other
// nodes do. It never waits. Only an agent of a node does it; see OnNode.
func (s *Source) Announce(policy cluster.Key, findings []cluster.Diagnostic) {
	if s.node != "" {
		s.notices.add(policy, findings)
	}
}

// Amend has these findings, none if there are none any more, written in the place of
// what Announce was given about a policy and is not written yet. It never waits.
func (s *Source) Amend(policy cluster.Key, findings []cluster.Diagnostic) {
	s.notices.amend(policy, findings)
}

// CountEvents has what becomes of each Event counted. It is to be called before Run.
func (s *Source) CountEvents(count func(result string)) {
	s.notices.count = func(r EventResult) { count(string(r)) }
}

// CountPodEvents has what becomes of each Event on a pod counted. It is to be called before Run.
func (s *Source) CountPodEvents(count func(result string)) {
	s.onPods.count = func(r EventResult) { count(string(r)) }
}

// CountErrors has each request counted that failed, and each watch that broke. It is to
// be called before Run.
func (s *Source) CountErrors(count func(reason string)) {
	for _, r := range s.reports {
		r.count = func(reason ErrorReason) { count(string(reason)) }
	}
}

// Reloading returns the source, whose cfg was loaded by LoadConfig with these
// arguments: it is loaded again when the server does not accept the credentials,
// and when the file changes.
func (s *Source) Reloading(kubeconfig, master string) *Source {
	s.login.reload, s.login.kubeconfig, s.login.master = true, kubeconfig, master
	return s
}

// Feeds says how the source stands with each kind that it watches: those of
// cluster.Kinds, then Services and EndpointSlices.
func (s *Source) Feeds() []feed.Feed {
	all := cluster.Kinds()
	if s.services {
		all = append(all, cluster.Services, cluster.EndpointSlices)
	}
	list := make([]feed.Feed, len(all))
	for i, k := range all {
		list[i] = s.reports[k.String()].state()
	}
	return list
}

// watched is one kind of object and where it is kept.
type watched struct {
	gv       schema.GroupVersion
	resource string
	example  runtime.Object
	store    storage
	filter   func(*metav1.ListOptions) // which of the objects
}

// storage is a sink, of whatever it converts.
type storage interface {
	cache.ReflectorStore
	collector() func(watch.Event) (taken bool)
	restart()
}

// Run fills the store and follows all changes until ctx ends; then it returns
// nil, with all its goroutines finished. A server that cannot be reached, or
// that refuses, is logged and tried again for ever: it is for the caller to
// lose patience. The error is about cfg.
func (s *Source) Run(ctx context.Context, store *cluster.Store) error {
	// client-go's own log is silenced: what matters is said by reporter, once.
	ctx = klog.NewContext(ctx, klog.Logger{})
	for cfg := s.cfg; cfg != nil; {
		// Each configuration has sinks of its own: a Reflector that ends leaves a list that hangs to
		// itself, and what that comes back to must not be the next one's.
		all := kinds(store, s.node)
		if s.services {
			all = append(all, serviceKinds(store)...)
		}
		next, err := s.follow(ctx, cfg, store, all)
		if err != nil {
			return err
		}
		cfg = next
	}
	return nil
}

// follow follows all kinds until ctx ends, or until another configuration takes
// the place of this one, which it then returns.
func (s *Source) follow(ctx context.Context, cfg *rest.Config, store *cluster.Store, all []watched) (*rest.Config,
	error) {
	client, err := newHTTPClient(cfg)
	if err != nil {
		return nil, err
	}
	defer utilnet.CloseIdleConnectionsFor(client.Transport)
	var reflectors []*cache.Reflector
	for _, w := range all {
		r, err := s.reflector(cfg, client, store, w)
		if err != nil {
			return nil, err
		}
		reflectors = append(reflectors, r)
	}
	again, err := restClient(cfg, client, networkingv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	events, err := restClient(cfg, client, corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	speaker := &speaker{notices: s.notices, client: events, store: store, node: s.node, alone: s.seesOneNode}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { refill(ctx, again, store, s.log) })
	running.Go(func() { speaker.run(ctx) })
	running.Go(func() { s.onPods.run(ctx, events, store, s.node) })
	for _, r := range reflectors {
		running.Go(func() { r.RunWithContext(ctx) })
	}
	next := s.login.changed(ctx, cfg)
	stop()
	running.Wait()
	return next, nil
}

// seesOneNode reports whether the Node of this agent alone may be read.
func (s *Source) seesOneNode() bool { return s.reports[cluster.Nodes.String()].seesOwnOnly() }

func kinds(store *cluster.Store, node string) []watched {
	interner := convert.NewInterner().OnNode(node) // used by the goroutine of the pods only
	return []watched{
		{corev1.SchemeGroupVersion, "namespaces", &corev1.Namespace{}, &sink[*corev1.Namespace, *cluster.Namespace]{
			store: store, kind: cluster.Namespaces, convert: convert.Namespace,
			set:     (*cluster.Tx).SetNamespace,
			remove:  func(tx *cluster.Tx, k cluster.Key) { tx.DeleteNamespace(k.Name) },
			replace: (*cluster.Tx).ReplaceNamespaces,
			key:     func(n *cluster.Namespace) cluster.Key { return cluster.Key{Name: n.Name} },
		}, noFilter},
		{corev1.SchemeGroupVersion, "pods", &prunedPod{}, &sink[*corev1.Pod, *cluster.Pod]{
			store: store, kind: cluster.Pods, convert: interner.Pod,
			set: (*cluster.Tx).SetPod, remove: (*cluster.Tx).DeletePod, replace: (*cluster.Tx).ReplacePods,
			key:    func(p *cluster.Pod) cluster.Key { return p.Key },
			listed: interner.Forget,
		}, noFilter},
		{networkingv1.SchemeGroupVersion, "networkpolicies", &networkingv1.NetworkPolicy{}, newPolicySink(store),
			noFilter},
		{corev1.SchemeGroupVersion, "nodes", &prunedNode{}, &sink[*corev1.Node, *cluster.Node]{
			store: store, kind: cluster.Nodes, convert: convert.Node,
			set:     (*cluster.Tx).SetNode,
			remove:  func(tx *cluster.Tx, k cluster.Key) { tx.DeleteNode(k.Name) },
			replace: (*cluster.Tx).ReplaceNodes,
			key:     func(n *cluster.Node) cluster.Key { return cluster.Key{Name: n.Name} },
		}, noFilter},
	}
}

func (s *Source) reflector(cfg *rest.Config, client *http.Client, store *cluster.Store, w watched) (*cache.Reflector,
	error) {
	c, err := restClient(cfg, client, w.gv)
	if err != nil {
		return nil, err
	}
	lw := &listWatch{
		ListWatch: cache.NewFilteredListWatchFromClient(c, w.resource, "", w.filter),
		store:     w.store,
		report:    s.reports[w.resource],
	}
	if w.resource == cluster.Nodes.String() && s.node != "" {
		lw.instead = (&ownNode{c, s.node, store}).read
	}
	return cache.NewReflectorWithOptions(lw, w.example, w.store, cache.ReflectorOptions{
		Name: w.resource, TypeDescription: w.resource, Logger: &klog.Logger{}, Backoff: s.backoff,
	}), nil
}

// errType is a programming error: client-go checks the types.
func errType(obj any) error { return fmt.Errorf("storing an object: unexpected type %T", obj) }
