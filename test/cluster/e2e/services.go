// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/test/cluster"
)

// shopServices are Services of each kind: two pods on each node behind web, and
// behind sticky with affinity; one pod of the first node behind local, and none
// behind empty.
const shopServices = `---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {type: NodePort, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: NAMESPACE}
spec: {sessionAffinity: ClientIP, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: NAMESPACE}
spec: {type: NodePort, externalTrafficPolicy: Local, ipFamilyPolicy: PreferDualStack, selector: {app: local}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: NAMESPACE}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: nobody}, ports: [{port: 80, targetPort: 8080}]}
`

func shopManifest(namespace string) string {
	spread := "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, " +
		"whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {name: web}}}]"
	return webDeployment(namespace, "web", 4, spread) + strings.ReplaceAll(shopServices, "NAMESPACE", namespace)
}

// shop is a namespace with these Services, their pods, and clients.
type shop struct {
	t         *trial
	namespace string
	pods      []string // names of those behind web
	local     *cluster.Pod
	clients   []client
	outside   client // not on a node
	fronts    map[string]fronts
}

// fronts are the addresses of a Service, and the port that nodes open for it.
type fronts struct {
	addrs    []netip.Addr
	nodePort uint16
}

// client is where calls come from.
type client struct {
	name string
	ns   *netns.NS
}

func newShop(ctx context.Context, t *trial, namespace string) (s *shop, err error) {
	s = &shop{t: t, namespace: namespace, outside: client{"outside", t.Fabric()}, fronts: map[string]fronts{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove(ctx))
		}
	}()
	err = errors.Join(t.Namespace(ctx, namespace),
		t.apply(ctx, shopManifest(namespace)))
	if err != nil {
		return s, err
	}
	if s.local, err = t.Run(ctx, cluster.PodSpec(namespace, "local", t.node(1).Name, "netexec",
		fmt.Sprint("--http-port=", webPort))); err != nil {
		return s, err
	}
	if err := s.openClients(ctx); err != nil {
		return s, err
	}
	for _, name := range []string{"web", "sticky", "local", "empty"} {
		if err := s.readFronts(ctx, name); err != nil {
			return s, err
		}
	}
	return s, s.rollout(ctx, "status", "--timeout=4m")
}

// openClients has a pod of each node, and each node, call.
func (s *shop) openClients(ctx context.Context) error {
	for _, n := range s.t.Nodes() {
		p, err := s.t.Run(ctx, cluster.PodSpec(s.namespace, "client-of-"+n.Name, n.Name, "pause"))
		if err != nil {
			return err
		}
		ns, err := p.Netns(ctx)
		if err != nil {
			return err
		}
		s.clients = append(s.clients, client{"a pod of " + n.Name, ns}, client{n.Name, n.Netns()})
	}
	return nil
}

// podsOf are the clients that are pods; the others are nodes.
func (s *shop) podsOf() (list []client) {
	for _, c := range s.clients {
		if strings.HasPrefix(c.name, "a pod") {
			list = append(list, c)
		}
	}
	return list
}

func (s *shop) readFronts(ctx context.Context, name string) error {
	service, err := s.t.Client().CoreV1().Services(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	f := fronts{nodePort: uint16(service.Spec.Ports[0].NodePort)}
	for _, text := range service.Spec.ClusterIPs {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		f.addrs = append(f.addrs, a)
	}
	if want := len(s.t.ServiceRanges()); len(f.addrs) != want {
		return fmt.Errorf("service %s has the addresses %v, want %d", name, f.addrs, want)
	}
	s.fronts[name] = f
	return nil
}

func (s *shop) rollout(ctx context.Context, args ...string) error {
	_, err := s.t.Kubectl(ctx, "", append([]string{"rollout", "-n", s.namespace},
		append(args, "deployment/web")...)...)
	return err
}

// readPods takes the names of the pods behind web that are to stay.
func (s *shop) readPods(ctx context.Context) error {
	pods, err := s.t.Client().CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		return err
	}
	s.pods = nil
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil {
			s.pods = append(s.pods, p.Name)
		}
	}
	slices.Sort(s.pods)
	return nil
}

func (s *shop) remove(ctx context.Context) (err error) {
	for _, c := range s.podsOf() {
		err = errors.Join(err, c.ns.Close())
	}
	return errors.Join(err, s.t.Client().CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), s.namespace,
		metav1.DeleteOptions{}))
}

// services wants the calls of all clients to end where the API says.
func services(ctx context.Context, t *trial) error {
	s, err := newShop(ctx, t, "services")
	if err != nil {
		return err
	}
	if err = s.readPods(ctx); err == nil {
		err = errors.Join(s.clusterAddresses(ctx), s.nodePorts(ctx), s.affinity(ctx), s.onlyLocal(ctx), s.refused(ctx))
	}
	return errors.Join(err, s.remove(ctx))
}

// clusterAddresses wants every client to meet every pod, and a pod to meet itself.
func (s *shop) clusterAddresses(ctx context.Context) (err error) {
	for _, a := range s.fronts["web"].addrs {
		for _, c := range s.clients {
			err = errors.Join(err, s.meets(ctx, c, netip.AddrPortFrom(a, 80), s.pods))
		}
	}
	ns, opened := s.local.Netns(ctx)
	if opened != nil {
		return errors.Join(err, opened)
	}
	for _, a := range s.fronts["local"].addrs {
		err = errors.Join(err, s.meets(ctx, client{"the pod itself", ns}, netip.AddrPortFrom(a, 80), []string{"local"}))
	}
	return errors.Join(err, ns.Close())
}

// nodePorts wants a client from outside to meet every pod by every node.
func (s *shop) nodePorts(ctx context.Context) (err error) {
	for _, n := range s.t.Nodes() {
		for _, a := range n.Addrs {
			err = errors.Join(err, s.meets(ctx, s.outside, netip.AddrPortFrom(a, s.fronts["web"].nodePort), s.pods))
		}
	}
	return err
}

// affinity wants a client to meet one pod, always the same.
func (s *shop) affinity(ctx context.Context) (err error) {
	for _, a := range s.fronts["sticky"].addrs {
		for _, c := range s.podsOf() {
			at := netip.AddrPortFrom(a, 80)
			first, one := get(ctx, c, at, "hostname")
			for range 20 {
				name, again := get(ctx, c, at, "hostname")
				if one = errors.Join(one, again); one == nil && name != first {
					one = fmt.Errorf("%s met %s and then %s by %s", c.name, first, name, at)
				}
			}
			err = errors.Join(err, one)
		}
	}
	return err
}

// onlyLocal wants the node that has the pod to show it the client, and the other
// one to answer nothing.
func (s *shop) onlyLocal(ctx context.Context) (err error) {
	for i, n := range s.t.Nodes() {
		for _, a := range n.Addrs {
			at := netip.AddrPortFrom(a, s.fronts["local"].nodePort)
			seen, failed := get(ctx, s.outside, at, "clientip")
			from, _ := netip.ParseAddrPort(seen) // invalid where nothing was answered
			switch {
			case i > 0 && failed == nil:
				err = errors.Join(err, fmt.Errorf("%s has no pod of the Service and answers at %s", n.Name, at))
			case i == 0 && failed != nil:
				err = errors.Join(err, failed)
			case i == 0 && !s.isOutside(from.Addr().Unmap()):
				err = errors.Join(err, fmt.Errorf("the pod sees %s as its client, not the one from outside", seen))
			}
		}
	}
	return err
}

// isOutside reports whether an address is neither a node's nor a pod's.
func (s *shop) isOutside(a netip.Addr) bool {
	for _, n := range s.t.Nodes() {
		if slices.Contains(n.Addrs, a) {
			return false
		}
	}
	return a == s.t.APIServer().Addr() || a.Is6()
}

// refused wants a Service without pods to refuse at once.
func (s *shop) refused(ctx context.Context) (err error) {
	for _, a := range s.fronts["empty"].addrs {
		for _, c := range s.clients {
			_, one := get(ctx, c, netip.AddrPortFrom(a, 80), "hostname")
			if !errors.Is(one, unix.ECONNREFUSED) {
				err = errors.Join(err, fmt.Errorf("%s calls %s, a Service without pods, and gets %w, want a refusal",
					c.name, a, one))
			}
		}
	}
	return err
}

// meets calls until every one of the pods has answered. Others must not.
func (s *shop) meets(ctx context.Context, c client, at netip.AddrPort, want []string) error {
	met := map[string]int{}
	for range 40 * len(want) {
		name, err := get(ctx, c, at, "hostname")
		if err != nil {
			return fmt.Errorf("%s calls %s: %w", c.name, at, err)
		}
		if !slices.Contains(want, name) {
			return fmt.Errorf("%s calls %s and meets %s, want one of %v", c.name, at, name, want)
		}
		if met[name]++; len(met) == len(want) {
			return nil
		}
	}
	return fmt.Errorf("%s calls %s and meets %v only, want each of %v", c.name, at, met, want)
}

// get asks for a page of agnhost's netexec by a connection of its own.
func get(ctx context.Context, c client, at netip.AddrPort, page string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/%s", at, page), nil)
	if err != nil {
		return "", err
	}
	once := &http.Client{Transport: &http.Transport{DialContext: c.ns.Dial, DisableKeepAlives: true}}
	response, err := once.Do(request)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(text)), errors.Join(err, response.Body.Close())
}
