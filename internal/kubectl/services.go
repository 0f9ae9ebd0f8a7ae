// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/terminal"
)

// serviceReport says what podwall's service proxy does with one Service.
type serviceReport struct {
	Schema  string `json:"schema"`
	Service string `json:"service"`
	// Nodes are those where the answer is the same, together.
	Nodes []nodeFronts `json:"nodes"`
}

// nodeFronts is what the proxy of some nodes does.
type nodeFronts struct {
	Nodes  []string    `json:"nodes"`
	Fronts []frontFate `json:"fronts"`
	// Findings say which fronts are not served, and what else is wrong with the Service.
	Findings []string `json:"findings,omitempty"`
}

// frontFate is what happens to first packets to a front.
type frontFate struct {
	Front string `json:"front"`
	// Inside is for pods of the node and the node itself, Outside for all others.
	Inside  fate `json:"inside"`
	Outside fate `json:"outside"`
	// Affinity is for how many seconds a client comes back to its endpoint; 0 for none.
	Affinity uint32 `json:"affinitySeconds,omitempty"`
	// Admits are the ranges of clients that may connect, if not all may; others are dropped.
	Admits []string `json:"admits,omitempty"`

	front program.Front
}

// fate is what happens to the packets of some clients.
type fate struct {
	// Verdict is forward, reject or drop.
	Verdict string `json:"verdict"`
	// Endpoints are those of which each is as likely.
	Endpoints []endpoint `json:"endpoints,omitempty"`
	// Source is who an endpoint sees: the client; the node, in its place; or the client if it is a pod of the
	// cluster, else the node.
	Source string `json:"source,omitempty"`
}

func (f fate) same(o fate) bool {
	return f.Verdict == o.Verdict && f.Source == o.Source && slices.Equal(f.Endpoints, o.Endpoints)
}

type endpoint struct {
	Address string `json:"address"`
	Pod     string `json:"pod,omitempty"`
}

// The words for the sources.
var sources = map[program.Masquerade]string{program.Never: "client", program.Always: "node",
	program.Strangers: "client if a pod of the cluster, else node"}

// accounts computes what the nodes' proxies do with a Service. Equal answers are one.
func (sc *scene) accounts(ctx context.Context, key cluster.Key) (*serviceReport, error) {
	if !slices.ContainsFunc(sc.served.Services, func(s *cluster.Service) bool { return s.Key == key }) {
		return nil, fmt.Errorf("svc/%s is not served: it has no cluster address yet, or a label gives it to another "+
			"proxy; name a source too, as in explain POD svc/%s", key, key)
	}
	r := &serviceReport{Schema: explainSchema, Service: key.String()}
	for _, n := range sc.served.Nodes {
		one, err := sc.account(ctx, key, n)
		if err != nil {
			return nil, err
		}
		same := func(o nodeFronts) bool {
			return slices.EqualFunc(o.Fronts, one.Fronts, frontFate.same) && slices.Equal(o.Findings, one.Findings)
		}
		if i := slices.IndexFunc(r.Nodes, same); i >= 0 {
			r.Nodes[i].Nodes = append(r.Nodes[i].Nodes, n.Name)
			continue
		}
		r.Nodes = append(r.Nodes, one)
	}
	if len(r.Nodes) == 0 {
		return nil, errors.New("there is no node that could serve it")
	}
	return r, nil
}

func (f frontFate) same(o frontFate) bool {
	return f.Front == o.Front && f.Inside.same(o.Inside) && f.Outside.same(o.Outside) && f.Affinity == o.Affinity &&
		slices.Equal(f.Admits, o.Admits)
}

// account reads the answer from the programs that the agent of a node would load.
func (sc *scene) account(ctx context.Context, key cluster.Key, n *cluster.Node) (a nodeFronts, err error) {
	x := service.NewIndex(service.Settings{Node: n.Name, Strict: true}.On(n, n.Addrs, false))
	if sc.serving != nil {
		set, _ := sc.serving(n)
		x = service.NewIndex(set)
	}
	if err := x.Apply(ctx, everything(sc.served)); err != nil {
		return a, err
	}
	a.Nodes = []string{n.Name}
	for _, f := range inet.Families {
		p := x.Model().Program(f)
		for r := range p.Routes.All() {
			if owner, _, ok := x.Owner(r.Front, f); ok && owner == key {
				a.Fronts = append(a.Fronts, sc.fateOf(p, r))
			}
		}
	}
	slices.SortFunc(a.Fronts, func(a, b frontFate) int { return a.front.Compare(b.front) })
	for _, d := range x.Diagnostics() {
		if d.Object == key {
			a.Findings = append(a.Findings, d.String())
		}
	}
	return a, nil
}

// everything is a cluster as a change of an empty one.
func everything(s *cluster.ServiceSnapshot) *cluster.ServiceDelta {
	d := &cluster.ServiceDelta{}
	for _, v := range s.Services {
		d.Services = append(d.Services, cluster.Change[cluster.Service]{New: v})
	}
	for _, v := range s.Slices {
		d.Slices = append(d.Slices, cluster.Change[cluster.EndpointSlice]{New: v})
	}
	for _, v := range s.Nodes {
		d.Nodes = append(d.Nodes, cluster.Change[cluster.Node]{New: v})
	}
	for _, v := range s.Pods {
		d.Pods = append(d.Pods, cluster.Change[cluster.Pod]{New: v})
	}
	return d
}

func (sc *scene) fateOf(p *program.Program, r program.Route) frontFate {
	f := frontFate{Front: r.Front.String(), Affinity: uint32(r.Sticky), front: r.Front,
		Inside: sc.pickOf(p, r, r.Inside), Outside: sc.pickOf(p, r, r.Outside)}
	if !r.Front.Addr.IsValid() {
		f.Front += fmt.Sprintf(" of IPv%d", p.Family)
	}
	for _, a := range p.Admissions {
		if a.Name == r.Admission {
			f.Admits = []string{} // a list without a range admits nobody
			for _, one := range a.Ranges {
				f.Admits = append(f.Admits, one.String())
			}
		}
	}
	return f
}

func (sc *scene) pickOf(p *program.Program, r program.Route, pick program.Pick) fate {
	if pick.Count == 0 {
		return fate{Verdict: pick.Otherwise.String()}
	}
	f := fate{Verdict: "forward", Source: sources[pick.Masquerade]}
	for _, b := range p.Backends(r.Front, pick) {
		e := endpoint{Address: netip.AddrPortFrom(b.Addr, b.Port).String()}
		if end := sc.backend(netip.AddrPortFrom(b.Addr, b.Port)); end.Pod != (cluster.Key{}) {
			e.Pod = end.Pod.String()
		}
		f.Endpoints = append(f.Endpoints, e)
	}
	slices.SortFunc(f.Endpoints, func(a, b endpoint) int { return strings.Compare(a.Pod+a.Address, b.Pod+b.Address) })
	return f
}

// String returns the report for people.
func (r *serviceReport) String() string {
	var b strings.Builder
	put := func(indent, text string) {
		b.WriteString(terminal.Hang(indent+logging.Plain(text)) + "\n")
	}
	for _, n := range r.Nodes {
		put("", "Service "+r.Service+" on "+strings.Join(n.Nodes, ", "))
		for _, f := range n.Fronts {
			put("  ", f.Front)
			if f.Inside.same(f.Outside) {
				put("    ", f.Inside.String())
			} else {
				put("    ", "pods of the node and the node: "+f.Inside.String())
				put("    ", "others: "+f.Outside.String())
			}
			if f.Affinity > 0 {
				put("    ", fmt.Sprintf("a client comes back to its endpoint for %d s", f.Affinity))
			}
			if f.Admits != nil {
				put("    ", "clients of "+orNobody(f.Admits)+" only, others are dropped")
			}
		}
		if len(n.Fronts) == 0 {
			put("  ", "it is served nowhere")
		}
		for _, text := range n.Findings {
			put("  ", text)
		}
	}
	return b.String()
}

func orNobody(list []string) string {
	if len(list) == 0 {
		return "no range"
	}
	return strings.Join(list, ", ")
}

// String says what happens in one line.
func (f fate) String() string {
	switch f.Verdict {
	case "reject":
		return "rejected, no endpoint"
	case "drop":
		return "dropped, no endpoint on the node"
	}
	var list []string
	for _, e := range f.Endpoints {
		text := e.Address
		if e.Pod != "" {
			text = e.Pod + " (" + e.Address + ")"
		}
		list = append(list, text)
	}
	return "to " + strings.Join(list, " or ") + "; it sees the " + f.Source
}
