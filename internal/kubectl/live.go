// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/source/manifest"
)

// pageSize is how many objects one answer of the API server has.
const pageSize = 500

// lister reads lists from an API server.
type lister struct {
	config    *rest.Config
	codecs    serializer.CodecFactory
	param     runtime.ParameterCodec
	namespace string
	// limited are the resources of which only those of the namespace were read, for lack
	// of a right.
	limited []string
}

func newLister(config *rest.Config, namespace string) (*lister, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme,
		discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering API types: %w", err)
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return &lister{config: config, codecs: serializer.NewCodecFactory(scheme), param: runtime.NewParameterCodec(scheme),
		namespace: namespace}, nil
}

// list is a list of the API.
type list interface {
	runtime.Object
	metav1.ListInterface
}

// read calls add with each page of a resource: of all namespaces, or, where the right for
// that is missing, of one. into is empty.
func (l *lister) read(ctx context.Context, gv schema.GroupVersion, resource string, namespaced bool, into list,
	add func()) error {
	c := rest.CopyConfig(l.config)
	c.GroupVersion, c.APIPath = &gv, "/apis"
	if gv.Group == "" {
		c.APIPath = "/api"
	}
	c.NegotiatedSerializer = l.codecs.WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf,
		runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return fmt.Errorf("setting up the client of %s: %w", resource, err)
	}
	err = l.pages(ctx, client, resource, "", into, add)
	if apierrors.IsForbidden(err) && namespaced {
		if err = l.pages(ctx, client, resource, l.namespace, into, add); err == nil {
			l.limited = append(l.limited, resource)
		}
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", resource, err)
	}
	return nil
}

func (l *lister) pages(ctx context.Context, client rest.Interface, resource, namespace string, into list,
	add func()) error {
	o := metav1.ListOptions{Limit: pageSize}
	for {
		err := client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).
			VersionedParams(&o, l.param).Do(ctx).Into(into)
		if err != nil {
			return err
		}
		add()
		if o.Continue = into.GetContinue(); o.Continue == "" {
			return nil
		}
		into.SetContinue("")
	}
}

// openCluster reads the objects of a cluster at one moment. Of an answer in pages, later
// ones are of the same moment.
func (s *source) openCluster(ctx context.Context, namespace string) (*scene, error) {
	config, err := s.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; %s", err, s.cure())
	}
	l, err := newLister(config, namespace)
	if err != nil {
		return nil, err
	}
	r := &reading{result: &manifest.Result{}, workload: map[cluster.Key]string{},
		declared: map[cluster.Key][]cluster.NamedPort{}}
	if err := l.everything(ctx, r); err != nil {
		return nil, s.unanswered(ctx, err)
	}
	var nodes []*cluster.Node
	for _, n := range r.result.Nodes {
		nodes = append(nodes, convert.Node(n))
	}
	audit, note := s.auditMode(r.agentsIn(s.agents), r.result)
	snap, found := complete.Settle(r.result, nodes, allowance(audit))
	sc := newScene(snap, nodes)
	sc.allowed = allowance(audit)
	sc.note(note)
	sc.noteServices(r.result.Services)
	for i := range r.slices {
		r.result.Slices = append(r.result.Slices, &r.slices[i])
	}
	sc.served, _ = r.result.Served()
	sc.called = sc.served
	sc.serving, sc.images = servingAs(r.agents, s.agents), imagesOf(r.agents, s.agents)
	sc.fronts, sc.workload, sc.declared = r.fronts(), r.workload, r.declared
	sc.found = slices.Concat(r.result.Diagnostics, found)
	sc.answers.Report(sc.found)
	sc.asWritten = !slices.ContainsFunc(sc.found, isError) && len(r.missing) == 0
	if len(r.missing) > 0 {
		sc.notes = append(sc.notes,
			fmt.Sprintf("error: no right to list %s: the answer is without them; ask for the right",
				strings.Join(r.missing, ", ")))
	}
	if len(l.limited) > 0 {
		sc.asWritten = false
		sc.notes = append(sc.notes,
			fmt.Sprintf("error: no right to list %s of all namespaces: only those of %s are known, "+
				"others count as absent", strings.Join(l.limited, ", "), namespace))
	}
	return sc, nil
}

// reading is what was read of a cluster.
type reading struct {
	result   *manifest.Result
	slices   []discoveryv1.EndpointSlice
	workload map[cluster.Key]string
	declared map[cluster.Key][]cluster.NamedPort
	// missing are the kinds that could not be read, for lack of a right.
	missing []string
	// agents are pods that may be agents.
	agents []corev1.Pod
}

// agentsIn returns the value of the flag that says whether audit mode is obeyed, of each agent by node.
func (r *reading) agentsIn(namespace string) map[string]string {
	values := map[string]string{}
	here := slices.DeleteFunc(slices.Clone(r.agents), func(p corev1.Pod) bool { return p.Namespace != namespace })
	for _, a := range agentsAmong(here) {
		i := slices.IndexFunc(here, func(p corev1.Pod) bool { return p.Name == a.Key.Name })
		values[a.Node] = auditOfAgent(&here[i])
	}
	return values
}

// kind is one kind of objects.
type kind struct {
	name   string
	needed bool // without it there is no answer
	read   func() error
}

// everything reads all kinds. Who may not read one that is not needed gets answers
// without it, and is told.
func (l *lister) everything(ctx context.Context, r *reading) error {
	namespaces, nodes := &corev1.NamespaceList{}, &corev1.NodeList{}
	pods, policies := &corev1.PodList{}, &networkingv1.NetworkPolicyList{}
	services, endpoints := &corev1.ServiceList{}, &discoveryv1.EndpointSliceList{}
	core, net, discovery := corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion
	of := func(gv schema.GroupVersion, name string, namespaced, needed bool, into list, add func()) kind {
		return kind{name, needed, func() error { return l.read(ctx, gv, name, namespaced, into, add) }}
	}
	for _, k := range []kind{
		of(core, "pods", true, true, pods, func() { r.addPods(pods) }),
		of(net, "networkpolicies", true, true, policies, func() { r.addPolicies(policies) }),
		of(core, "namespaces", false, false, namespaces, func() { r.addNamespaces(namespaces) }),
		of(core, "nodes", false, false, nodes, func() { r.addNodes(nodes) }),
		of(core, "services", true, false, services, func() { r.addServices(services) }),
		of(discovery, "endpointslices", true, false, endpoints, func() { r.addEndpoints(endpoints) }),
	} {
		err := k.read()
		if apierrors.IsForbidden(err) && !k.needed {
			r.missing = append(r.missing, k.name)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) addNamespaces(l *corev1.NamespaceList) {
	for i := range l.Items {
		r.result.Namespaces = append(r.result.Namespaces, convert.Namespace(&l.Items[i]))
	}
	l.Items = nil
}

func (r *reading) addEndpoints(l *discoveryv1.EndpointSliceList) {
	r.slices = append(r.slices, l.Items...)
	l.Items = nil
}

func (r *reading) addNodes(l *corev1.NodeList) {
	for i := range l.Items {
		r.result.Nodes = append(r.result.Nodes, &l.Items[i])
	}
	l.Items = nil
}

func (r *reading) addPods(l *corev1.PodList) {
	for i := range l.Items {
		p := convert.Pod(&l.Items[i])
		r.result.Pods = append(r.result.Pods, p)
		r.declared[p.Key] = declaredPorts(&l.Items[i])
		if l.Items[i].Labels[agentLabel] == agentName {
			r.agents = append(r.agents, l.Items[i])
		}
		if name := workloadOf(&l.Items[i].ObjectMeta); name != "" {
			r.workload[p.Key] = name
		}
	}
	l.Items = nil
}

// workloadOf returns the name of the object that made a pod; of a ReplicaSet's, that of
// its Deployment.
func workloadOf(p *metav1.ObjectMeta) string {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return ""
	}
	if hash := p.Labels["pod-template-hash"]; hash != "" && owner.Kind == "ReplicaSet" {
		return strings.TrimSuffix(owner.Name, "-"+hash)
	}
	return owner.Name
}

func (r *reading) addPolicies(l *networkingv1.NetworkPolicyList) {
	for i := range l.Items {
		p, found := convert.Policy(&l.Items[i])
		r.result.Policies = append(r.result.Policies, p)
		r.result.Diagnostics = append(r.result.Diagnostics, found...)
	}
	l.Items = nil
}

func (r *reading) addServices(l *corev1.ServiceList) {
	for i := range l.Items {
		r.result.Services = append(r.result.Services, &l.Items[i])
	}
	l.Items = nil
}

// fronts returns the ports of Services at their addresses.
func (r *reading) fronts() (all []complete.Front) {
	for _, s := range r.result.Services {
		for _, text := range s.Spec.ClusterIPs {
			a, err := netip.ParseAddr(text)
			if err != nil { // "None"
				continue
			}
			for _, p := range s.Spec.Ports {
				protocol, ok := cluster.ParseProtocol(cmp.Or(string(p.Protocol), "TCP"))
				if ok {
					all = append(all, complete.NewFront(s, p, a, protocol))
				}
			}
		}
	}
	return all
}
