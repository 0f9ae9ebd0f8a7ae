// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// SetKey identifies a set by its meaning: two sets with the same key have the same members in every
// cluster. It is a digest, so that selectors of any length are compared at the same cost.
type SetKey [sha256.Size]byte

// nameLength is the number of base32 characters of a short name: 60 bits, so that among 100,000
// names two collide in fewer than one of 10^8 clusters.
const nameLength = 12

// Name returns a short name for the key.
func (k SetKey) Name() string {
	return strings.ToLower(base32.StdEncoding.EncodeToString(k[:]))[:nameLength]
}

// Selection selects pods: those that Pods matches, in the given namespaces.
type Selection struct {
	Namespace  string            // the only namespace; empty means any, known or not
	Namespaces *cluster.Selector // if set, the namespaces that match
	Pods       cluster.Selector
}

// matches reports whether the selection selects a pod. namespace is the pod's, nil while it is not
// known: then no namespace selector matches it, not even the empty one.
func (s *Selection) matches(p *cluster.Pod, namespace *cluster.Namespace) bool {
	switch {
	case s.Namespaces != nil:
		if namespace == nil || !s.Namespaces.Matches(namespace.Labels) {
			return false
		}
	case s.Namespace != "" && s.Namespace != p.Key.Namespace:
		return false
	}
	return s.Pods.Matches(p.Labels)
}

// parts returns the meaning of the selection as texts.
func (s *Selection) parts() [3]string {
	namespaces := ""
	switch {
	case s.Namespaces != nil:
		namespaces = s.Namespaces.Text()
	case s.Namespace == "":
		namespaces = "<any>" // no selector has this text
	}
	return [3]string{s.Namespace, namespaces, s.Pods.Text()}
}

// String describes the selection for people.
func (s *Selection) String() string {
	where := "namespace " + s.Namespace
	switch {
	case s.Namespaces != nil:
		where = "namespaces " + s.Namespaces.String()
	case s.Namespace == "":
		where = "any namespace"
	}
	return fmt.Sprintf("pods %s in %s", shorten(s.Pods.String()), shorten(where))
}

// shorten truncates a text for people: a selector may have any length.
func shorten(text string) string {
	const enough = 256
	if len(text) <= enough {
		return text
	}
	return text[:enough] + "..."
}

// SetSpec describes the members of a set: the addresses of the networked pods that at least one of
// the selections selects; for named ports together with the port numbers that each pod declares
// under one of the names. It is immutable.
type SetSpec struct {
	Selections []Selection
	// Local restricts the set to pods of this node. It is for the named ports of ingress rules,
	// whose destination is always a local subject.
	Local bool
	// PortNames, if there are any, make this a set of addresses and ports.
	PortNames []string // sorted
	Protocol  cluster.Protocol

	key   SetKey
	find  *byPod[int]         // the selections by index, if there are many
	names map[string]struct{} // the port names, if there are many
}

// many is the length above which a list is searched by an index.
const many = 8

// NewSetSpec returns the set of the addresses of the pods that at least one of the selections
// selects; with names, of addresses and port numbers. Duplicates and the order of names and
// selections do not matter.
func NewSetSpec(local bool, protocol cluster.Protocol, names []string, list ...Selection) *SetSpec {
	s := &SetSpec{Selections: list, Local: local, Protocol: protocol}
	s.PortNames = slices.Compact(slices.Sorted(slices.Values(names)))
	s.key = s.digest()
	if len(s.Selections) > many {
		s.find = &byPod[int]{}
		for i := range s.Selections {
			s.find.add(&s.Selections[i], i)
		}
	}
	if len(s.PortNames) > many {
		s.names = make(map[string]struct{}, len(s.PortNames))
		for _, n := range s.PortNames {
			s.names[n] = struct{}{}
		}
	}
	return s
}

// tells reports whether a namespace selector distinguishes a from b; nil is a namespace that is not
// known.
func (s *SetSpec) tells(a, b *cluster.Namespace) bool {
	return slices.ContainsFunc(s.Selections, func(o Selection) bool {
		return o.Namespaces != nil &&
			(a != nil && o.Namespaces.Matches(a.Labels)) != (b != nil && o.Namespaces.Matches(b.Labels))
	})
}

// Key returns the identity of the set.
func (s *SetSpec) Key() SetKey { return s.key }

// digest hashes the meaning. Each part is hashed with its length, so that different lists never
// give the same bytes.
func (s *SetSpec) digest() (key SetKey) {
	h := sha256.New()
	if len(s.Selections) == 1 && len(s.PortNames) <= 1 {
		parts := s.Selections[0].parts()
		write(h, parts[:]...)
		write(h, strconv.FormatBool(s.Local), strings.Join(s.PortNames, ""), s.Protocol.String())
	} else {
		write(h, "several", strconv.Itoa(len(s.PortNames)), strconv.FormatBool(s.Local), s.Protocol.String())
		write(h, s.PortNames...)
		for _, parts := range s.sortedParts() {
			write(h, parts[:]...)
		}
	}
	h.Sum(key[:0])
	return key
}

// sortedParts returns the meaning of the selections, in an order that does not depend on how they
// were written.
func (s *SetSpec) sortedParts() [][3]string {
	list := make([][3]string, len(s.Selections))
	for i := range s.Selections {
		list[i] = s.Selections[i].parts()
	}
	slices.SortFunc(list, func(a, b [3]string) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

func write(h hash.Hash, parts ...string) {
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
}

// String describes the set for people.
func (s *SetSpec) String() string {
	text := fmt.Sprintf("pods of %d selectors", len(s.Selections))
	if len(s.Selections) == 1 {
		text = s.Selections[0].String()
	}
	switch len(s.PortNames) {
	case 0:
		return text
	case 1:
		return fmt.Sprintf("port %s/%s of %s", s.Protocol, s.PortNames[0], text)
	}
	return fmt.Sprintf("%d named %s ports of %s", len(s.PortNames), s.Protocol, text)
}

// owners returns the pods that own an address, of all that have it in their status. While a pod
// that is being deleted still names an address that another pod got, the other one owns it.
func owners(claimants []*cluster.Pod) []*cluster.Pod {
	if len(claimants) < 2 {
		return claimants
	}
	var staying []*cluster.Pod
	for _, p := range claimants {
		if !p.Terminating {
			staying = append(staying, p)
		}
	}
	if len(staying) == 0 {
		return claimants
	}
	return staying
}

// elements appends a pod's elements of the set for one of its addresses. namespace is the pod's,
// nil while it is not known.
func (s *SetSpec) elements(list []inet.Element, p *cluster.Pod, namespace *cluster.Namespace,
	a netip.Addr) []inet.Element {
	if !p.Networked() || !s.selects(p, namespace) {
		return list
	}
	return s.of(list, p, a)
}

// of appends the elements of a selected pod for an address.
func (s *SetSpec) of(list []inet.Element, p *cluster.Pod, a netip.Addr) []inet.Element {
	if len(s.PortNames) == 0 {
		return append(list, inet.Element{Addr: a})
	}
	for _, port := range p.NamedPorts() {
		if port.Protocol == s.Protocol && s.named(port.Name) {
			list = append(list, inet.Element{Addr: a, Port: port.Port})
		}
	}
	return list
}

func (s *SetSpec) named(port string) bool {
	if s.names == nil {
		return slices.Contains(s.PortNames, port)
	}
	_, found := s.names[port]
	return found
}

func (s *SetSpec) selects(p *cluster.Pod, namespace *cluster.Namespace) (found bool) {
	if s.find == nil {
		return slices.ContainsFunc(s.Selections, func(o Selection) bool { return o.matches(p, namespace) })
	}
	s.find.candidates(p, namespace, func(i int) bool {
		found = s.Selections[i].matches(p, namespace)
		return !found
	})
	return found
}
