// SPDX-License-Identifier: Apache-2.0

// Package cases reads expected connectivity as data (schema npcase/v1): small
// clusters, their policies, and which endpoint may reach which. It turns a
// step into a cluster.Snapshot or into manifests, asks a Backend what really
// is reachable, and lists the differences.
//
// It owns the format and the comparison. It opens no file and no socket:
// callers give it readers and writers, and the backends that send packets live
// elsewhere. Its objects go through the same conversion as those of an API
// server, so a case tests that too.
package cases

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// Schema is the format that this package reads.
const Schema = "npcase/v1"

// Backend answers what is reachable in a step. The steps of one case are asked
// in order, so a backend may keep the cluster between them.
type Backend interface {
	Judge(ctx context.Context, step *Step) (Observed, error)
}

// Case is a cluster that changes: steps that follow each other and belong to
// one run.
type Case struct{ Steps []*Step }

// Step is one line of a file: a whole cluster at one moment.
type Step struct {
	Schema string `json:"schema"`
	ID     string `json:"id"`
	Source string `json:"source,omitempty"`
	// Case and Step number the step inside its source, from 1; Steps is how many
	// steps the case has.
	Case        int      `json:"case"`
	Step        int      `json:"step"`
	Steps       int      `json:"steps"`
	Description string   `json:"description,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	// Family is IPv4 or IPv6: the family of all flows.
	Family string `json:"family"`
	// Actions are what changed since the step before, in API order. The other
	// fields already contain it.
	Actions    []Action                     `json:"actions,omitempty"`
	Namespaces []Namespace                  `json:"namespaces"`
	Pods       []Pod                        `json:"pods"`
	Externals  []External                   `json:"externals"`
	Policies   []networkingv1.NetworkPolicy `json:"policies"`
	// ClusterPolicies are of another API, which no backend here knows.
	ClusterPolicies []any `json:"clusterPolicies,omitempty"`
	// Endpoints names pods (namespace/name) and externals: the order of rows
	// and columns.
	Endpoints []string `json:"endpoints"`
	Probes    []Probe  `json:"probes"`
	// Says are verdicts that the text of a recipe states.
	Says []Claim `json:"says,omitempty"`
}

// Action is one API call.
type Action struct {
	// Op is createNamespace, setNamespaceLabels, deleteNamespace, createPod,
	// setPodLabels, deletePod, createPolicy, updatePolicy or deletePolicy.
	Op        string                      `json:"op"`
	Namespace string                      `json:"namespace"`
	Name      string                      `json:"name,omitempty"`
	Labels    map[string]string           `json:"labels,omitempty"`
	Policy    *networkingv1.NetworkPolicy `json:"policy,omitempty"`
}

// Namespace is a namespace of a step.
type Namespace struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Pod is a pod of a step. The fields after Ports do not occur in the files that
// others wrote; absent they mean a running pod with one address and a network
// of its own.
type Pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Node      string            `json:"node"`
	IP        netip.Addr        `json:"ip"`
	Labels    map[string]string `json:"labels"`
	Ports     []ContainerPort   `json:"ports"`
	// OtherIPs come after IP, as in status.podIPs.
	OtherIPs    []netip.Addr `json:"otherIPs,omitempty"`
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	Phase       string       `json:"phase,omitempty"`
	Terminating bool         `json:"terminating,omitempty"`
}

// Key returns the pod's key.
func (p *Pod) Key() cluster.Key { return cluster.Key{Namespace: p.Namespace, Name: p.Name} }

// Addrs returns all addresses, in order; none if the pod has none yet.
func (p *Pod) Addrs() []netip.Addr { return addrs(p.IP, p.OtherIPs) }

func addrs(first netip.Addr, others []netip.Addr) []netip.Addr {
	if !first.IsValid() {
		return nil
	}
	return append([]netip.Addr{first}, others...)
}

// ContainerPort is a port that a pod declares; the name may be empty.
type ContainerPort struct {
	Name     string `json:"name,omitempty"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
}

// External is a host outside the cluster. Its address may lie in the range
// that pods have theirs from; it is still no pod.
type External struct {
	Name     string       `json:"name"`
	IP       netip.Addr   `json:"ip"`
	OtherIPs []netip.Addr `json:"otherIPs,omitempty"`
}

// Addrs returns all addresses, in order.
func (e External) Addrs() []netip.Addr { return addrs(e.IP, e.OtherIPs) }

// Probe is one port and protocol, tried from each endpoint to each. The rows
// of a matrix are sources, the columns destinations, in the order of
// Step.Endpoints: '1' allowed, '0' dropped, anything else not defined.
type Probe struct {
	Port     uint16 `json:"port"`
	PortName string `json:"portName,omitempty"`
	Protocol string `json:"protocol"`
	// Expected is what to test against.
	Expected []string `json:"expected"`
	// Egress, Ingress and Combined are the verdicts by side, before a pod to
	// itself is let through.
	Egress   []string `json:"egress,omitempty"`
	Ingress  []string `json:"ingress,omitempty"`
	Combined []string `json:"combined,omitempty"`
}

// String returns the notation of reports, as in tcp:80.
func (p *Probe) String() string { return fmt.Sprintf("%s:%d", strings.ToLower(p.Protocol), p.Port) }

// Claim is one verdict in the words of a recipe.
type Claim struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	Allowed  bool   `json:"allowed"`
}

// End is an endpoint of a step: a pod, or an external host when Pod is nil.
type End struct {
	Name string
	Pod  *Pod
	Addr netip.Addr
}

// Ends returns the endpoints in order, each with its first address of the
// step's family, or with its first address if it has none of that family. A
// name that is neither a pod nor an external is an error.
func (s *Step) Ends() ([]End, error) {
	known := make(map[string]End, len(s.Pods)+len(s.Externals))
	for _, e := range s.Externals {
		known[e.Name] = End{Name: e.Name, Addr: s.address(e.Addrs())}
	}
	for i := range s.Pods {
		p := &s.Pods[i]
		known[p.Key().String()] = End{Name: p.Key().String(), Pod: p, Addr: s.address(p.Addrs())}
	}
	ends := make([]End, len(s.Endpoints))
	for i, name := range s.Endpoints {
		end, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("endpoint %q is neither a pod nor an external", name)
		}
		ends[i] = end
	}
	return ends, nil
}

func (s *Step) address(list []netip.Addr) netip.Addr {
	for _, a := range list {
		if a.Is4() == (s.Family == "IPv4") {
			return a
		}
	}
	if len(list) == 0 {
		return netip.Addr{}
	}
	return list[0]
}

// Nodes returns the nodes that the pods are on, sorted.
func (s *Step) Nodes() []string {
	var nodes []string
	for _, p := range s.Pods {
		nodes = append(nodes, p.Node)
	}
	return sortedUnique(nodes)
}
