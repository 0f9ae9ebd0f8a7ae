// SPDX-License-Identifier: Apache-2.0

// Package lint names what in network policies means something and was probably not
// meant: selectors that select nobody, namespaces that do not exist, named ports that no
// pod declares. Everything is enforced as it is written; these are questions to its
// author.
//
// Check asks what concerns every cluster: selectors and names that lead nowhere. All also
// asks what is often meant as it is written: numbers of ports that no container declares,
// except ranges that another block allows again, egress without DNS.
//
// It is a function of the cluster at one moment. Some findings are normal in a cluster
// that lives: a policy may come before its pods, and one that isolates all pods of an
// empty namespace waits for them. So each finding says of what kind it is, and who shows
// them decides which.
package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/spelling"
)

// Kind is the kind of a finding.
type Kind uint8

// The kinds. The zero value is none of them.
const (
	// EmptyNamespace: a policy in a namespace without pods.
	EmptyNamespace Kind = iota + 1
	// AbsentNamespace: a policy is in a namespace, or names one, that does not exist.
	AbsentNamespace
	// NoSubject: a podSelector that selects no pod of its namespace.
	NoSubject
	// NoPeer: a peer that is nobody.
	NoPeer
	// UndeclaredPort: a named port that none of the pods that it is for declares.
	UndeclaredPort
	// UndeclaredNumber: a port number that none of the pods that it is for declares, though
	// each of them declares ports. Only All reports it.
	UndeclaredNumber
	// EmptyBlock: except ranges that together cover their block. Only All reports it.
	EmptyBlock
	// RefilledExcept: an except range that another block of the same rule allows again. Only
	// All reports it.
	RefilledExcept
	// NoDNS: pods whose egress policies allow something, and no DNS. Only All reports it.
	NoDNS
)

// String returns the word of the kind in machine-readable output.
func (k Kind) String() string {
	words := [...]string{"none", "empty-namespace", "absent-namespace", "no-subject", "no-peer", "undeclared-port",
		"undeclared-number", "empty-block", "refilled-except", "no-dns"}
	if int(k) < len(words) {
		return words[k]
	}
	return fmt.Sprintf("kind-%d", k)
}

// MarshalText returns the word that String returns.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Finding is one finding. The diagnostic is a warning.
type Finding struct {
	Kind Kind
	cluster.Diagnostic
}

// Facts are what a snapshot does not hold.
type Facts struct {
	// ContainerPorts are the ports that the containers of each pod declare, with a name or
	// without. Nothing is asked about numbers for a pod that is not in the map.
	ContainerPorts map[cluster.Key][]cluster.NamedPort
}

// Check returns the findings about all policies, in the order of the policies, rules and
// kinds. Every selector is asked about pods until one matches: it is for a person's
// question, not for every change of a big cluster.
func Check(snap *cluster.Snapshot) []Finding { return newChecker(snap).run() }

// All returns the findings of Check and those of all other kinds.
func All(snap *cluster.Snapshot, f Facts) []Finding {
	c := newChecker(snap)
	c.facts = &f
	c.dns = c.withoutDNS()
	return c.run()
}

func newChecker(snap *cluster.Snapshot) *checker {
	c := &checker{snap: snap, pods: map[string][]*cluster.Pod{}, namespaces: map[string]*cluster.Namespace{}}
	for _, n := range snap.Namespaces {
		c.namespaces[n.Name] = n
	}
	for _, p := range snap.Pods {
		if !p.Finished {
			c.pods[p.Key.Namespace] = append(c.pods[p.Key.Namespace], p)
		}
	}
	return c
}

func (c *checker) run() []Finding {
	for _, p := range c.snap.Policies {
		c.policy(p)
	}
	return c.found
}

// checker collects findings.
type checker struct {
	facts      *Facts                       // nil for the kinds of Check only
	dns        map[cluster.Key][]withoutDNS // by the policy that is asked about them
	snap       *cluster.Snapshot
	pods       map[string][]*cluster.Pod // by namespace; those that run or will
	namespaces map[string]*cluster.Namespace
	of         *cluster.Policy
	found      []Finding
}

func (c *checker) say(k Kind, field, message, cure string) {
	c.found = append(c.found, Finding{k, cluster.Diagnostic{Severity: cluster.Warning, Kind: "NetworkPolicy",
		Object: c.of.Key, Field: field, Message: message, Cure: cure}})
}

func (c *checker) policy(p *cluster.Policy) {
	c.of = p
	own := p.Key.Namespace
	subjects := selected(c.pods[own], p.Subject)
	switch {
	case c.namespaces[own] == nil:
		c.say(AbsentNamespace, "metadata.namespace", "there is no namespace "+own,
			"correct the name, or create the namespace"+c.nearNamespace(own))
	case len(c.pods[own]) == 0:
		c.say(EmptyNamespace, "spec.podSelector", "namespace "+own+" has no pods: the policy holds for no pod yet", "")
	case len(subjects) == 0 && p.Subject.Valid():
		c.nobody(NoSubject, "spec.podSelector", "podSelector", p.Subject, "namespace "+own, c.pods[own])
	}
	for _, r := range p.Ingress {
		field := fmt.Sprintf("spec.ingress[%d]", r.Index)
		c.peers(field+".from", r.Peers)
		c.ports(field+".ports", r.Ports, subjects, ofSubjects)
		if c.facts != nil {
			c.blocks(field+".from", r.Peers)
			c.numbers(field+".ports", r.Ports, subjects, ofSubjects)
		}
	}
	for _, r := range p.Egress {
		field := fmt.Sprintf("spec.egress[%d]", r.Index)
		peers := c.peers(field+".to", r.Peers)
		c.ports(field+".ports", r.Ports, peers, ofPeers)
		if c.facts != nil {
			c.blocks(field+".to", r.Peers)
			if onlyPods(r.Peers) { // addresses outside declare nothing
				c.numbers(field+".ports", r.Ports, peers, ofPeers)
			}
		}
	}
	c.noDNS(p)
}

// The pods that declare the ports of a rule.
const (
	ofSubjects = "pod that the policy selects"
	ofPeers    = "pod that the rule leads to"
)

// peers checks the peers of a rule and returns the pods among them. A block of addresses
// may hold any pod.
func (c *checker) peers(field string, peers cluster.Peers) (list []*cluster.Pod) {
	if peers.Any {
		return selected(c.all(), cluster.Everything())
	}
	for _, peer := range peers.List {
		if peer.Block != nil {
			list = append(list, selected(c.all(), cluster.Everything())...)
			continue
		}
		list = append(list, c.peer(field, peer)...)
	}
	return list
}

func (c *checker) peer(field string, peer cluster.Peer) []*cluster.Pod {
	if peer.Namespaces != nil && !peer.Namespaces.Valid() || !peer.Pods.Valid() {
		return nil // an error says so
	}
	where, candidates := "namespace "+c.of.Key.Namespace, c.pods[c.of.Key.Namespace]
	if sel := peer.Namespaces; sel != nil {
		names := c.matching(*sel)
		c.absent(field, *sel)
		if len(names) == 0 {
			if len(absentNames(*sel, c.namespaces)) == 0 {
				c.say(NoPeer, field,
					fmt.Sprintf("namespaceSelector %s selects no namespace: the entry matches no pod", text(*sel)),
					"correct the labels of the selector or of the namespace"+nearLabel(*sel, c.namespaceLabels()))
			}
			return nil
		}
		where, candidates = "these namespaces", nil
		if len(names) == 1 {
			where = "namespace " + names[0]
		}
		for _, name := range names {
			candidates = append(candidates, c.pods[name]...)
		}
	}
	found := selected(candidates, peer.Pods)
	if len(found) == 0 {
		c.nobody(NoPeer, field, "podSelector", peer.Pods, where, candidates)
	}
	return found
}

// nobody says that a selector selects no pod of some.
func (c *checker) nobody(k Kind, field, name string, sel cluster.Selector, where string, pods []*cluster.Pod) {
	switch onNode := slices.ContainsFunc(pods, func(p *cluster.Pod) bool { return sel.Matches(p.Labels) }); {
	case onNode:
		c.say(k, field,
			fmt.Sprintf("%s %s selects only pods on the network of their node (hostNetwork), for which policies "+
				"do not hold", name, text(sel)),
			"name the node's addresses by an ipBlock where you mean them as a peer")
	case sel.MatchesAll():
		c.say(k, field, fmt.Sprintf("%s has no pods: the entry matches no pod yet", where), "")
	default:
		c.say(k, field, fmt.Sprintf("%s %s selects no pod of %s", name, text(sel), where),
			"correct the labels of the selector or of the pods"+nearLabel(sel, podLabels(pods)))
	}
}

// absent says which namespaces a selector names that do not exist.
func (c *checker) absent(field string, sel cluster.Selector) {
	for _, name := range absentNames(sel, c.namespaces) {
		c.say(AbsentNamespace, field, "namespaceSelector names namespace "+name+", which does not exist",
			"correct the name, or create the namespace"+c.nearNamespace(name))
	}
}

// nameLabel is the label that every namespace has with its name as the value.
const nameLabel = "kubernetes.io/metadata.name"

// absentNames returns the namespaces that a selector asks for by name and that there are
// not.
func absentNames(sel cluster.Selector, known map[string]*cluster.Namespace) []string {
	var list []string
	for _, l := range sel.Exact() {
		if l.Key == nameLabel && known[l.Value] == nil {
			list = append(list, l.Value)
		}
	}
	return list
}

// ports checks the named ports of a rule against the pods that they are for.
func (c *checker) ports(field string, ports cluster.Ports, pods []*cluster.Pod, which string) {
	if len(pods) == 0 {
		return // who is nobody declares nothing
	}
	for _, port := range ports.List {
		if port.Name == "" {
			continue
		}
		protocols, declared := declaredAs(pods, port.Name)
		if slices.Contains(protocols, port.Protocol) {
			continue
		}
		message := fmt.Sprintf("no %s declares a port %q for %s", which, port.Name, port.Protocol)
		if len(protocols) > 0 {
			message += fmt.Sprintf(", only for %s", protocols[0])
		}
		c.say(UndeclaredPort, field, message+": the entry matches nothing",
			"correct the name, declare it in containers[].ports, or write the number"+near(port.Name, declared))
	}
}

// declaredAs returns the protocols for which pods declare a port, and the names of all
// ports.
func declaredAs(pods []*cluster.Pod, name string) (protocols []cluster.Protocol, names []string) {
	for _, p := range pods {
		for _, n := range p.NamedPorts() {
			if names = append(names, n.Name); n.Name == name {
				protocols = append(protocols, n.Protocol)
			}
		}
	}
	return protocols, names
}

func (c *checker) all() []*cluster.Pod {
	return slices.DeleteFunc(slices.Clone(c.snap.Pods), func(p *cluster.Pod) bool { return p.Finished })
}

func (c *checker) matching(sel cluster.Selector) (names []string) {
	for _, n := range c.snap.Namespaces {
		if sel.Matches(n.Labels) {
			names = append(names, n.Name)
		}
	}
	return names
}

// selected returns the pods of a list for which policies hold and that a selector
// matches.
func selected(pods []*cluster.Pod, sel cluster.Selector) (list []*cluster.Pod) {
	for _, p := range pods {
		if !p.HostNetwork && sel.Matches(p.Labels) {
			list = append(list, p)
		}
	}
	return list
}

func text(sel cluster.Selector) string {
	if sel.MatchesAll() {
		return "{}"
	}
	return `"` + strings.ReplaceAll(sel.Text(), ",", ", ") + `"`
}

func podLabels(pods []*cluster.Pod) (list []cluster.Label) {
	for _, p := range pods {
		list = append(list, p.Labels...)
	}
	return list
}

func (c *checker) namespaceLabels() (list []cluster.Label) {
	for _, n := range c.snap.Namespaces {
		list = append(list, n.Labels...)
	}
	return list
}

func (c *checker) nearNamespace(name string) string {
	var names []string
	for _, n := range c.snap.Namespaces {
		names = append(names, n.Name)
	}
	return near(name, names)
}

// nearLabel proposes a label that exists and is almost the one that a selector asks for.
func nearLabel(sel cluster.Selector, existing []cluster.Label) string {
	for _, l := range sel.Exact() {
		var values []string
		for _, other := range existing {
			values = append(values, other.Key+"="+other.Value)
		}
		if hint := near(l.Key+"="+l.Value, values); hint != "" {
			return hint
		}
	}
	return ""
}

// near proposes the nearest of some words, as the end of a cure; "" if none is near.
func near(word string, words []string) string {
	best, distance := "", min(3, len(word)/2+1)
	for _, w := range words {
		if d := spelling.Distance(word, w); d > 0 && d < distance {
			best, distance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}
