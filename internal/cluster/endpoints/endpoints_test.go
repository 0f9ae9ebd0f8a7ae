// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
)

func pod(name string, ips ...string) *cluster.Pod {
	p := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: "n1",
		Labels: cluster.NewLabels(map[string]string{"app": "web"})}
	for _, ip := range ips {
		p.IPs = append(p.IPs, netip.MustParseAddr(ip))
	}
	return p
}

func with(p *cluster.Pod, change func(*cluster.Pod)) *cluster.Pod {
	change(p)
	return p
}

func service(ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: ports}}
	s.Namespace, s.Name = "shop", "web"
	return s
}

func declares(name string, protocol cluster.Protocol, port uint16) func(*cluster.Pod) {
	return func(p *cluster.Pod) {
		p.Declared = &cluster.Declared{Ports: []cluster.NamedPort{{Name: name, Protocol: protocol, Port: port}}}
	}
}

// text returns slices as one line: ports, then addresses with what is not usual of each.
func text(list []*cluster.EndpointSlice) string {
	var lines []string
	for _, s := range list {
		line := ""
		for _, p := range s.Ports {
			line += fmt.Sprintf("%s/%s/%d ", p.Name, p.Protocol, p.Port)
		}
		for _, e := range s.Endpoints {
			line += fmt.Sprintf("%s@%s", e.Addr, e.Node)
			if !e.Ready {
				line += fmt.Sprintf("(serving %t, terminating %t)", e.Serving, e.Terminating)
			}
			line += " "
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "; ")
}

func TestSlicesAreThoseOfTheController(t *testing.T) {
	http := corev1.ServicePort{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}
	named := corev1.ServicePort{Name: "http", Port: 80, TargetPort: intstr.FromString("web")}
	for _, tt := range []struct {
		name string
		s    *corev1.Service
		pods []*cluster.Pod
		want string
	}{
		{"both families, by address", service(http), []*cluster.Pod{pod("b", "10.0.0.2", "fd00::2"), pod("a", "10.0.0.1")},
			"http/TCP/8080 10.0.0.1@n1 10.0.0.2@n1; http/TCP/8080 fd00::2@n1"},
		{"the port of the Service itself", service(corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}),
			[]*cluster.Pod{pod("a", "10.0.0.1")}, "/UDP/53 10.0.0.1@n1"},
		{"a named port that pods number differently", service(named), []*cluster.Pod{
			with(pod("a", "10.0.0.1"), declares("web", cluster.TCP, 8081)),
			with(pod("b", "10.0.0.2"), declares("web", cluster.TCP, 8080))},
			"http/TCP/8080 10.0.0.2@n1; http/TCP/8081 10.0.0.1@n1"},
		{"a named port of another protocol is none", service(named),
			[]*cluster.Pod{with(pod("a", "10.0.0.1"), declares("web", cluster.UDP, 8080))}, "10.0.0.1@n1"},
		{"other labels, another namespace, finished, without an address", service(http), []*cluster.Pod{
			with(pod("a", "10.0.0.1"), func(p *cluster.Pod) { p.Labels = nil }),
			with(pod("b", "10.0.0.2"), func(p *cluster.Pod) { p.Key.Namespace = "x" }),
			with(pod("c", "10.0.0.3"), func(p *cluster.Pod) { p.Finished = true }), pod("d")}, ""},
		{"on the host's network", service(http), []*cluster.Pod{
			with(pod("a", "192.0.2.1"), func(p *cluster.Pod) { p.HostNetwork = true })}, "http/TCP/8080 192.0.2.1@n1"},
		{"not ready, and one that ends", service(http), []*cluster.Pod{pod("unready", "10.0.0.1"),
			with(pod("b", "10.0.0.2"), func(p *cluster.Pod) { p.Terminating = true })},
			"http/TCP/8080 10.0.0.1@n1(serving false, terminating false) 10.0.0.2@n1(serving true, terminating true)"},
		{"that publishes all", func() *corev1.Service {
			s := service(http)
			s.Spec.PublishNotReadyAddresses = true
			return s
		}(), []*cluster.Pod{pod("unready", "10.0.0.1")}, "http/TCP/8080 10.0.0.1@n1"},
		{"no selector", func() *corev1.Service {
			s := service(http)
			s.Spec.Selector = nil
			return s
		}(), []*cluster.Pod{pod("a", "10.0.0.1")}, ""},
		{"a number that is no port", service(corev1.ServicePort{Port: 80, TargetPort: intstr.FromInt32(70000)}),
			[]*cluster.Pod{pod("a", "10.0.0.1")}, "10.0.0.1@n1"},
	} {
		ready := func(p *cluster.Pod) bool { return p.Key.Name != "unready" }
		list := Slices(tt.s, tt.pods, ready)
		if got := text(list); got != tt.want {
			t.Errorf("%s: got %s\nwant %s", tt.name, got, tt.want)
		}
		slices.Reverse(tt.pods)
		if got := text(Slices(tt.s, tt.pods, ready)); got != tt.want {
			t.Errorf("%s, in another order: got %s", tt.name, got)
		}
		seen := map[cluster.Key]bool{}
		for _, s := range list {
			if seen[s.Key] || s.Parent() != (cluster.Key{Namespace: "shop", Name: "web"}) {
				t.Errorf("%s: slice %s of %s", tt.name, s.Key, s.Parent())
			}
			seen[s.Key] = true
		}
	}
}
