// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// ephemeral are labels that controllers write, or that change with each release: a selector with one of
// them selects nothing after the next rollout.
func ephemeral(key string) bool {
	switch key {
	case "pod-template-hash", "pod-template-generation", "controller-revision-hash", "controller-uid", "job-name",
		"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/controller-uid",
		"batch.kubernetes.io/job-name", "batch.kubernetes.io/job-completion-index", "app.kubernetes.io/version",
		"helm.sh/chart":
		return true
	}
	return false
}

// group are the pods of a namespace that have the same labels, but for ephemeral ones. Selectors cannot
// tell them apart.
type group struct {
	namespace string
	labels    cluster.Labels
	// without are keys that other pods of the namespace have, which have all of the labels too.
	without []string
	// workloads are the names of what the pods were made of, sorted.
	workloads []string
}

func (g *group) compare(o *group) int {
	return cmp.Or(cmp.Compare(g.namespace, o.namespace), slices.Compare(g.workloads, o.workloads),
		cmp.Compare(g.labels.String(), o.labels.String()))
}

// groups are those of a cluster.
type groups struct {
	of         map[cluster.Key]*group
	byWorkload map[cluster.Key][]*group // namespace and workload
	// addresses are those that are no host outside, and why.
	addresses map[netip.Addr]string
	ranges    map[netip.Prefix]string
}

func newGroups(in Input) *groups {
	g := &groups{of: map[cluster.Key]*group{}, byWorkload: map[cluster.Key][]*group{},
		addresses: map[netip.Addr]string{}, ranges: map[netip.Prefix]string{}}
	known := map[cluster.Key]*group{} // namespace and labels
	for _, p := range in.Snap.Pods {
		if p.Finished {
			continue
		}
		id := cluster.Key{Namespace: p.Key.Namespace, Name: stable(p.Labels).String()}
		if known[id] == nil {
			known[id] = &group{namespace: p.Key.Namespace, labels: stable(p.Labels)}
		}
		one := known[id]
		g.of[p.Key] = one
		name := cmp.Or(in.Workload[p.Key], p.Key.Name)
		if !slices.Contains(one.workloads, name) {
			one.workloads = append(one.workloads, name)
		}
		workload := cluster.Key{Namespace: p.Key.Namespace, Name: name}
		if !slices.Contains(g.byWorkload[workload], one) {
			g.byWorkload[workload] = append(g.byWorkload[workload], one)
		}
	}
	list := slices.Collect(maps.Values(known))
	for _, one := range list {
		slices.Sort(one.workloads)
	}
	slices.SortFunc(list, (*group).compare)
	for _, one := range list {
		one.separate(list)
	}
	g.noteAddresses(in)
	return g
}

// stable returns the labels that stay.
func stable(l cluster.Labels) (kept cluster.Labels) {
	for _, one := range l {
		if !ephemeral(one.Key) {
			kept = append(kept, one)
		}
	}
	return kept
}

// separate finds the keys that keep a selector of the group's labels from selecting others. A group with
// all of its labels has a further one, since two groups differ.
func (g *group) separate(all []*group) {
	for _, o := range all {
		if o == g || o.namespace != g.namespace || !g.selects(o.labels) {
			continue
		}
		for _, l := range o.labels {
			if !g.labels.Has(l.Key) {
				g.without = append(g.without, l.Key)
				break
			}
		}
	}
	slices.Sort(g.without)
}

// selects reports whether the group's selector selects labels.
func (g *group) selects(l cluster.Labels) bool {
	for _, one := range g.labels {
		if value, has := l.Lookup(one.Key); !has || value != one.Value {
			return false
		}
	}
	return !slices.ContainsFunc(g.without, l.Has)
}

// noteAddresses notes the addresses that an ipBlock must not name.
func (g *groups) noteAddresses(in Input) {
	for a := range in.Services {
		g.addresses[a] = "the address of a Service"
	}
	for _, p := range in.Snap.Pods {
		for _, a := range p.IPs {
			g.addresses[a] = "the address of a pod that was not known then"
			if near, err := a.Prefix(nearBits(a)); err == nil && !p.HostNetwork {
				g.ranges[near] = "an address of the pods' network: of a bridge, a tunnel, or a pod that is gone"
			}
		}
	}
	for _, n := range in.Nodes {
		for _, r := range n.PodCIDRs {
			g.ranges[r] = "an address of the pods of node " + n.Name
		}
	}
	for _, n := range in.Nodes {
		for _, a := range n.Addrs {
			g.addresses[a] = "the address of node " + n.Name
		}
	}
}

// nearBits is the size of the network around a pod that counts as the pods'.
func nearBits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

// ingress and egress are the directions of records.
const (
	ingress = "ingress"
	egress  = "egress"
)

// rule returns the side and the peer of a flow, or why there can be no rule for it.
func (g *groups) rule(r *denied.Record) (s side, p peer, why string) {
	subject, why := g.pods(*r.Subject().Pod)
	if why != "" {
		return s, p, why
	}
	s = side{subject, r.Direction}
	switch r.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return s, p, "no rule can name its protocol: only one that allows everything from the peer would allow it"
	}
	if r.Port == 0 {
		return s, p, "its port is not known: it is a later fragment"
	}
	end := r.Peer()
	if end.Pod != nil {
		p.pods, why = g.pods(*end.Pod)
		return s, p, why
	}
	p.address = end.Address
	return s, p, g.inside(end)
}

// inside says why an address is none of a host outside of the cluster; empty if it is one. What it names
// may stand for others: a node that translates sends with its own address.
func (g *groups) inside(e denied.End) string {
	a := e.Address
	switch {
	case e.Node != "":
		return "the other end is node " + e.Node + ", which also stands for whom it translates"
	case g.addresses[a] != "":
		return "the other end is " + g.addresses[a]
	case !a.IsGlobalUnicast():
		return "the other end is no address of a host"
	}
	for _, r := range slices.SortedFunc(maps.Keys(g.ranges), comparePrefixes) {
		if r.Contains(a) {
			return "the other end is " + g.ranges[r]
		}
	}
	return ""
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// pods returns the group of a pod, or why it has none.
func (g *groups) pods(k cluster.Key) (*group, string) {
	one := g.of[k]
	if one == nil {
		one = g.formerly(k)
	}
	switch {
	case one == nil:
		return nil, fmt.Sprintf("pod %s is gone, and no workload of its name has pods", k)
	case len(one.labels) == 0:
		return nil, fmt.Sprintf("pod %s has no labels by which a policy could select it", k)
	}
	return one, ""
}

// formerly returns the group of a pod that is gone: that of the pods of its workload, if all have the
// same labels.
func (g *groups) formerly(k cluster.Key) (found *group) {
	for _, w := range slices.SortedFunc(maps.Keys(g.byWorkload), cluster.Key.Compare) {
		if w.Namespace != k.Namespace || !MadeBy(w.Name, k.Name) {
			continue
		}
		for _, one := range g.byWorkload[w] {
			if found != nil && found != one {
				return nil
			}
			found = one
		}
	}
	return found
}

// notes names the workloads that a policy cannot tell apart.
func (g *groups) notes(sides map[side]allowed) (notes []string) {
	used := map[*group]bool{}
	for s, peers := range sides {
		used[s.subject] = true
		for p := range peers {
			if p.pods != nil {
				used[p.pods] = true
			}
		}
	}
	for _, one := range slices.SortedFunc(maps.Keys(used), (*group).compare) {
		if len(one.workloads) > 1 {
			notes = append(notes, fmt.Sprintf("%s of %s have the same labels: what was seen of one is allowed to all",
				strings.Join(one.workloads, ", "), one.namespace))
		}
	}
	return notes
}

// generated is what controllers append to the name of their workload: a Deployment the hash of its
// template and five letters, a DaemonSet or a Job five letters, a StatefulSet a number. The letters and
// digits are those of k8s.io/apimachinery/pkg/util/rand.
var generated = regexp.MustCompile(`^-([0-9]+|[bcdfghjklmnpqrstvwxz2456789]{5,10}(-[bcdfghjklmnpqrstvwxz2456789]{5,10})?)$`)

// MadeBy reports whether a pod has a name that a controller makes of that of its workload.
func MadeBy(workload, pod string) bool {
	rest, ok := strings.CutPrefix(pod, workload)
	return ok && generated.MatchString(rest)
}
