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
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
)

// answer says whether one path of a question is allowed, and why.
type answer struct {
	Source             string     `json:"source"`
	Destination        string     `json:"destination"`
	SourceAddress      netip.Addr `json:"sourceAddress"`
	DestinationAddress netip.Addr `json:"destinationAddress"`
	Protocol           string     `json:"protocol"`
	Port               uint16     `json:"port,omitempty"`
	Via                string     `json:"via,omitempty"`
	// Families are those for which the answer holds; addresses are of the first.
	Families []string     `json:"families"`
	Allowed  bool         `json:"allowed"`
	Egress   explain.Side `json:"egress"`
	Ingress  explain.Side `json:"ingress"`

	explanation *explain.Explanation
	way         path
}

// same reports whether two answers differ in nothing but the family of the addresses.
func (a answer) same(b answer) bool {
	return a.Source == b.Source && a.Destination == b.Destination && a.Port == b.Port && a.Via == b.Via &&
		a.Egress.Same(b.Egress) && a.Ingress.Same(b.Ingress)
}

// path is one way that a connection may take. A node port changes addresses between the
// nodes: then the two sides see different flows.
type path struct {
	via             string
	egress, ingress explain.Flow
	// entry is where a client sends to, of a path through a Service or a node port; entryName is whose
	// address that is.
	entry     netip.AddrPort
	entryName string
}

// translated reports whether the two sides see different flows.
func (way path) translated() bool { return way.ingress != way.egress }

// ask returns the answers to SRC DST[:PORT]: one for each family that both ends have and
// each pod of a Service; equal ones of two families are one. It ends early, with the error of ctx,
// when ctx ends.
func (sc *scene) ask(ctx context.Context, source, destination string) ([]answer, error) {
	ways, err := sc.ways(ctx, source, destination, 0)
	if err != nil {
		return nil, err
	}
	return sc.judge(ctx, ways)
}

// ways returns all paths of SRC DST[:PORT]. More than most are an error; 0 for no bound.
func (sc *scene) ways(ctx context.Context, source, destination string, most int) ([]path, error) {
	text, p, err := splitPort(destination)
	if err != nil {
		return nil, err
	}
	src, err := sc.target(source)
	if err != nil {
		return nil, err
	}
	dst, err := sc.target(text)
	if err != nil {
		return nil, err
	}
	if len(src.fronts) > 0 && len(src.ends) == 0 {
		return nil, fmt.Errorf("%s is a Service: it sends nothing, name a pod as the source", src.name)
	}
	if dst.prober {
		return nil, fmt.Errorf("%s is a source; name a node as node/NAME", kubelet)
	}
	var paths []path
	for _, s := range src.each() {
		for _, d := range dst.each() {
			some, err := sc.paths(ctx, s, d, p)
			if err != nil {
				return nil, err
			}
			paths = append(paths, some...)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case most > 0 && len(paths) > most:
				return nil, fmt.Errorf("%s to %s are more than %d different flows: name a pod at one end, "+
					"as in shop/web-0", source, destination, most)
			}
		}
	}
	return paths, nil
}

// judge returns the answers about paths; equal ones of two families are one.
func (sc *scene) judge(ctx context.Context, ways []path) ([]answer, error) {
	list, err := sc.each(ctx, ways)
	return merged(list), err
}

// each returns the answer about each path.
func (sc *scene) each(ctx context.Context, ways []path) ([]answer, error) {
	var list []answer
	for _, way := range ways {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a, err := sc.answer(way)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// merged returns answers in which equal ones of two families are one.
func merged(each []answer) (list []answer) {
	for _, a := range each {
		i := slices.IndexFunc(list, a.same)
		switch {
		case i < 0:
			list = append(list, a)
		case !slices.Contains(list[i].Families, a.Families[0]):
			list[i].Families = slices.Concat(list[i].Families, a.Families)
		}
	}
	return list
}

func (sc *scene) answer(way path) (answer, error) {
	e, err := sc.answers.Explain(way.egress)
	if err != nil {
		return answer{}, err
	}
	if way.translated() {
		there, err := sc.answers.Explain(way.ingress)
		if err != nil {
			return answer{}, err
		}
		e.Flow.Dst, e.Dst, e.Flow.Port = way.ingress.Dst, there.Dst, way.ingress.Port
		e.Ingress, e.Allowed = there.Ingress, e.Egress.Allowed() && there.Ingress.Allowed()
	}
	return answer{Families: []string{familyName(e.Dst)}, Source: e.Flow.Src.String(), Destination: e.Flow.Dst.String(),
		SourceAddress: e.Src, DestinationAddress: e.Dst, Protocol: e.Flow.Protocol.String(), Port: e.Flow.Port,
		Via: way.via, Allowed: e.Allowed, Egress: e.Egress, Ingress: e.Ingress,
		explanation: e, way: way}, nil
}

// familyName is the name of an address's family in answers.
func familyName(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

func (sc *scene) paths(ctx context.Context, src, dst target, p port) ([]path, error) {
	if len(dst.fronts) > 0 {
		fronts, err := p.fronts(dst.name, dst.fronts)
		var list []path
		if err == nil {
			list, err = sc.toService(ctx, src, dst, fronts)
		} else if dst.node != nil { // an address may be a node's and a Service's
			err = errNotServed
		}
		if !errors.Is(err, errNotServed) || len(dst.ends) == 0 || sc.nodeOf(dst.ends[0]) == "" {
			return list, err
		}
	}
	if fronts := sc.nodePorts(p); dst.node != nil && len(fronts) > 0 {
		return sc.toNodePort(ctx, src, dst, fronts)
	}
	p, err := p.resolve(dst)
	if err != nil {
		return nil, err
	}
	var list []path
	for _, v6 := range []bool{false, true} {
		to, ok := dst.end(v6)
		if from, found := sc.from(src, to, v6); ok && found && sc.asks(v6) {
			list = append(list, straight("", from, to, p.protocol, p.number))
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case src.prober:
		return nil, fmt.Errorf("the node of %s is not known, or has no address of its family", dst.name)
	}
	return nil, fmt.Errorf("%s and %s have no address of one family", src.name, dst.name)
}

// asks reports whether a family is asked about.
func (sc *scene) asks(v6 bool) bool { return sc.family == 0 || v6 == (sc.family == inet.IPv6) }

func straight(via string, from, to explain.End, protocol inet.Protocol, number uint16) path {
	f := explain.Flow{Src: from, Dst: to, Protocol: protocol, Port: number}
	return path{via: via, egress: f, ingress: f}
}

// from returns the source's end; that of the kubelet is on the node of the destination.
func (sc *scene) from(src target, to explain.End, v6 bool) (explain.End, bool) {
	if !src.prober {
		return src.end(v6)
	}
	name := to.Node
	if p := sc.owner(to); p != nil {
		name = p.Node
	}
	n := sc.node(name)
	if n == nil {
		return explain.End{}, false
	}
	a := ofFamily(n.Addrs, v6)
	return explain.End{Node: name, Addr: a}, a.IsValid()
}

// owner returns the pod at an end, or nil.
func (sc *scene) owner(e explain.End) *cluster.Pod {
	if e.Pod != (cluster.Key{}) {
		return sc.answers.Pod(e.Pod)
	}
	return sc.answers.Owner(e.Addr)
}

// fromOutside says what is not known of a client outside of the cluster.
func (sc *scene) fromOutside(from explain.End, dst target, f complete.Front) string {
	switch {
	case sc.nodeOf(from) != "":
		return ""
	case len(dst.ends) == 0 || dst.ends[0].Addr == f.Front.Addr():
		return ", whose address is reached from inside the cluster,"
	case !f.LocalOnly:
		return ", at the pod's own node (other nodes forward with their own address),"
	}
	return ""
}

func via(f complete.Front) string {
	return fmt.Sprintf("Service %s port %d/%s", f.Name, f.Front.Port(), strings.ToLower(f.Protocol.String()))
}

// backend is the end at a backend's address, named by its pod.
func (sc *scene) backend(b netip.AddrPort) explain.End {
	e := explain.End{Addr: b.Addr()}
	if p := sc.owner(e); p != nil {
		e.Pod = p.Key
	} else if n := sc.nodeAt(b.Addr()); n != nil {
		e.Node = n.Name
	}
	return e
}

func (sc *scene) nodePorts(p port) (list []complete.Front) {
	for _, f := range sc.fronts {
		if f.NodePort != 0 && f.NodePort == p.number && inet.Protocol(f.Protocol) == p.protocol {
			list = append(list, f)
		}
	}
	return list
}

func (sc *scene) nodeOf(e explain.End) string {
	if p := sc.owner(e); p != nil {
		return p.Node
	}
	return e.Node
}
