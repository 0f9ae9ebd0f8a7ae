// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"encoding/binary"

	"github.com/podwall/podwall/internal/cluster"
)

// generation is the number of entries after which an Interner drops the older half of its tables.
// It bounds the memory of values that no pod uses any more.
const generation = 8192

// Interner makes equal parts of pods and of endpoints share memory: a cluster of 100,000 pods has few
// different label sets, port lists, namespaces and nodes. Its results are the same with and without sharing,
// except for OnNode. A nil Interner shares nothing. It is not safe for concurrent use.
type Interner struct {
	texts  recent[string]
	labels recent[cluster.Labels]
	ports  recent[*cluster.Declared]
	places recent[*cluster.Placement]
	key    []byte // scratch space, to look up without allocating
	node   string // the only node whose pods' UIDs matter; empty for all
}

// NewInterner returns an empty Interner.
func NewInterner() *Interner {
	in := &Interner{}
	in.Forget()
	return in
}

// OnNode returns the Interner, set up for an agent of that node: it drops the UIDs of pods of other
// nodes. The UID distinguishes a pod from a successor of the same name, which matters only on the
// pod's node.
func (in *Interner) OnNode(name string) *Interner {
	in.node = name
	return in
}

// Forget drops the tables. Values already returned stay valid; later pods share among themselves.
// It is useful after a large list: the tables take some megabytes, and single pods that follow are
// few.
func (in *Interner) Forget() {
	in.texts, in.labels = newRecent[string](), newRecent[cluster.Labels]()
	in.ports, in.places = newRecent[*cluster.Declared](), newRecent[*cluster.Placement]()
}

// uid returns the UID to keep for a pod.
func (in *Interner) uid(uid, node string) string {
	if in != nil && in.node != "" && in.node != node {
		return ""
	}
	return uid
}

func (in *Interner) text(s string) string {
	if in == nil || s == "" {
		return s
	}
	in.key = append(in.key[:0], s...)
	if shared, ok := in.texts.get(in.key); ok {
		return shared
	}
	return in.texts.put(s, s)
}

func (in *Interner) labelSet(m map[string]string) cluster.Labels {
	set := cluster.NewLabels(m)
	if in == nil || set == nil {
		return set
	}
	key := in.key[:0]
	for _, l := range set {
		key = appendText(appendText(key, l.Key), l.Value)
	}
	in.key = key
	if shared, ok := in.labels.get(key); ok {
		return shared
	}
	name := string(key)
	for i, l := range set {
		set[i] = cluster.Label{Key: in.text(l.Key), Value: in.text(l.Value)}
	}
	return in.labels.put(name, set)
}

// declared returns the declared facts of a pod. A value with an Extra is not shared: such pods are
// few.
func (in *Interner) declared(ports []cluster.NamedPort, extra *cluster.Extra) *cluster.Declared {
	if len(ports) == 0 && extra == nil {
		return nil
	}
	d := &cluster.Declared{Ports: ports, Extra: extra}
	if in == nil || extra != nil {
		return d
	}
	key := in.key[:0]
	for _, p := range ports {
		key = append(appendText(key, p.Name), byte(p.Protocol))
		key = binary.BigEndian.AppendUint16(key, p.Port)
	}
	in.key = key
	if shared, ok := in.ports.get(key); ok {
		return shared
	}
	return in.ports.put(string(key), d)
}

// placement returns the placement, shared.
func (in *Interner) placement(p cluster.Placement) *cluster.Placement {
	if in == nil {
		return &p
	}
	key := append(in.key[:0], flag(p.Ready)|flag(p.Serving)<<1|flag(p.Terminating)<<2)
	key = appendText(key, p.Node)
	for _, list := range [][]string{p.NodeHints, p.ZoneHints} {
		key = binary.AppendUvarint(key, uint64(len(list)))
		for _, text := range list {
			key = appendText(key, text)
		}
	}
	in.key = key
	if shared, ok := in.places.get(key); ok {
		return shared
	}
	name := string(key)
	p.Node = in.text(p.Node)
	for _, list := range [][]string{p.NodeHints, p.ZoneHints} {
		for i, text := range list {
			list[i] = in.text(text)
		}
	}
	return in.places.put(name, &p)
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// appendText appends the length before the text, because no separator is safe: ("a", "bc") and
// ("ab", "c") must differ.
func appendText(key []byte, s string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(s))), s...)
}

// recent holds the values used lately, in two generations: when the young one is full it becomes
// the old one, and the old one is dropped.
type recent[T any] struct{ young, old map[string]T }

func newRecent[T any]() recent[T] { return recent[T]{young: map[string]T{}} }

func (r *recent[T]) get(key []byte) (T, bool) {
	if v, ok := r.young[string(key)]; ok {
		return v, true
	}
	v, ok := r.old[string(key)]
	if ok {
		r.put(string(key), v)
	}
	return v, ok
}

func (r *recent[T]) put(key string, v T) T {
	if len(r.young) >= generation {
		r.old, r.young = r.young, map[string]T{}
	}
	r.young[key] = v
	return v
}
