// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/explain/reach"
	"github.com/podwall/podwall/internal/logging"
)

// maxShown is how many groups a graph has; more are shown in turn.
const maxShown = 60

// The kinds of a graph's nodes.
const (
	kindNamespace = "namespace"
	kindWorkload  = "workload"
	kindHost      = "host"
)

// groupValue is a node of the graph: a namespace, a workload, or a host outside.
type groupValue struct {
	// ID names it in questions, Name to people.
	ID        string `json:"id"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Pods      int    `json:"pods"`
	Workloads int    `json:"workloads"`
	// Ingress and Egress are how many of the pods are isolated.
	Ingress int `json:"ingress"`
	Egress  int `json:"egress"`

	units reach.Group
}

// graphValue is a part of the graph.
type graphValue struct {
	Port string `json:"port"`
	// Read is when the objects were read.
	Read  string        `json:"read"`
	Nodes []*groupValue `json:"nodes"`
	// Total is how many nodes there are, of which these begin at First.
	Total int `json:"total"`
	First int `json:"first"`
	// Edges are all pairs of these nodes between which there can be flows.
	Edges []edgeValue `json:"edges"`
}

// edgeValue are the flows from one node to another, by their positions.
type edgeValue struct {
	From    int            `json:"s"`
	To      int            `json:"d"`
	Verdict matrix.Verdict `json:"v"`
	Allowed int            `json:"a"`
	Flows   int            `json:"f"`
	Audited int            `json:"u,omitempty"`
}

// verdictOf is a cell without its ends; ok is false if it has no flow.
func verdictOf(c matrix.Cell) (e edgeValue, ok bool) {
	e = edgeValue{Verdict: c.Verdict(), Allowed: c.IPv4.Allowed + c.IPv6.Allowed, Flows: c.IPv4.Flows + c.IPv6.Flows,
		Audited: c.IPv4.Audited + c.IPv6.Audited}
	return e, e.Flows > 0
}

// groups returns all nodes of the graph: workloads of open namespaces, and the other namespaces.
// match, if it is not empty, is a part of the names of those that are shown.
func (sc *uiScene) groups(open []string, match string) (list []*groupValue) {
	match = strings.ToLower(match)
	last := ""
	for _, u := range sc.reach.Units() {
		g := &groupValue{ID: kindWorkload + ":" + u.Name, Name: u.Name, Kind: kindWorkload, Namespace: u.Namespace}
		switch {
		case u.Namespace == "":
			g.ID, g.Kind = kindHost+":"+u.Name, kindHost
		case !slices.Contains(open, u.Namespace):
			g.ID, g.Name, g.Kind = kindNamespace+":"+u.Namespace, u.Namespace, kindNamespace
		}
		if !strings.Contains(strings.ToLower(g.Name), match) {
			continue
		}
		if g.ID != last {
			list = append(list, g)
		}
		g, last = list[len(list)-1], g.ID
		g.units = append(g.units, u)
		g.Pods, g.Workloads = g.Pods+len(u.Pods), g.Workloads+1
		g.Ingress, g.Egress = g.Ingress+u.Ingress, g.Egress+u.Egress
	}
	return list
}

// group returns the node with an ID.
func (sc *uiScene) group(id string) (*groupValue, error) {
	kind, name, _ := strings.Cut(id, ":")
	var open []string
	if namespace, _, found := strings.Cut(name, "/"); found && kind == kindWorkload {
		open = append(open, namespace)
	}
	list := sc.groups(open, "")
	if i := slices.IndexFunc(list, func(g *groupValue) bool { return g.ID == id }); i >= 0 {
		return list[i], nil
	}
	return nil, fmt.Errorf("%s is not there any more: read again", logging.Plain(name))
}

func (sc *uiScene) port(q url.Values) (matrix.Port, error) {
	if q.Get("port") == "" {
		return sc.ports[0], nil
	}
	return parsePortFlag(q.Get("port"))
}

// graphOf answers with the nodes from position first on, and all pairs among them. open are the
// namespaces whose workloads are shown.
func (sc *uiScene) graphOf(ctx context.Context, q url.Values) (any, error) {
	port, err := sc.port(q)
	if err != nil {
		return nil, err
	}
	first, err := number(q, "first")
	if err != nil {
		return nil, err
	}
	all := sc.groups(q["open"], q.Get("match"))
	v := graphValue{Port: port.String(), Read: sc.readAt(), Total: len(all), First: min(first, max(0, len(all)-1)),
		Edges: []edgeValue{}}
	v.Nodes = append([]*groupValue{}, all[v.First:min(v.First+maxShown, len(all))]...)
	groups := make([]reach.Group, len(v.Nodes))
	for i, n := range v.Nodes {
		groups[i] = n.units
	}
	cells, err := sc.reach.Cells(ctx, port, groups, groups)
	if err != nil {
		return nil, err
	}
	for s := range cells {
		for d := range cells[s] {
			if e, ok := verdictOf(cells[s][d]); ok {
				e.From, e.To = s, d
				v.Edges = append(v.Edges, e)
			}
		}
	}
	return v, nil
}

// pairValue are the flows between two workloads, or hosts.
type pairValue struct {
	Source      string         `json:"source"`
	Destination string         `json:"destination"`
	Verdict     matrix.Verdict `json:"verdict"`
	Allowed     int            `json:"allowed"`
	Flows       int            `json:"flows"`
}

// maxPairs is how many pairs an answer has.
const maxPairs = 100

// pairsOf answers which workloads an edge of the graph, or a missing one, is made of. Those whose
// verdict is in the minority come first: they are what the edge itself does not show.
func (sc *uiScene) pairsOf(ctx context.Context, q url.Values) (any, error) {
	port, err := sc.port(q)
	if err != nil {
		return nil, err
	}
	src, err := sc.group(q.Get("src"))
	if err != nil {
		return nil, err
	}
	dst, err := sc.group(q.Get("dst"))
	if err != nil {
		return nil, err
	}
	if src.Kind == kindHost && dst.Kind == kindHost {
		return nil, errors.New("both ends are outside of the cluster: no policy is about them")
	}
	list := []pairValue{} // at most maxPairs of each verdict: no more can be shown
	count, total := map[matrix.Verdict]int{}, 0
	err = sc.reach.Each(ctx, port, single(src.units), single(dst.units), func(s, d int, c matrix.Cell) {
		e, ok := verdictOf(c)
		if !ok {
			return
		}
		total++
		if count[e.Verdict]++; count[e.Verdict] <= maxPairs {
			list = append(list, pairValue{Source: src.units[s].Name, Destination: dst.units[d].Name,
				Verdict: e.Verdict, Allowed: e.Allowed, Flows: e.Flows})
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b pairValue) int { return cmp.Compare(count[a.Verdict], count[b.Verdict]) })
	return struct {
		Pairs []pairValue `json:"pairs"`
		Total int         `json:"total"`
	}{list[:min(len(list), maxPairs)], total}, nil
}

// single makes a group of each.
func single(g reach.Group) []reach.Group {
	list := make([]reach.Group, len(g))
	for i, u := range g {
		list[i] = reach.Group{u}
	}
	return list
}
