// SPDX-License-Identifier: Apache-2.0

package cluster

import "slices"

// Tx is a batch of changes to a Store. It is valid only inside the function given to Store.Update.
// Storing an equal object again is no change.
type Tx struct {
	store   *Store
	changed bool // for the policies
	proxied bool // for a service proxy
}

// SetNamespace stores a namespace.
func (tx *Tx) SetNamespace(n *Namespace) { tx.note(tx.store.setNamespace(n.Name, n)) }

// DeleteNamespace removes a namespace; an unknown one is no error.
func (tx *Tx) DeleteNamespace(name string) { tx.note(tx.store.setNamespace(name, nil)) }

// ReplaceNamespaces makes the given namespaces the only ones.
func (tx *Tx) ReplaceNamespaces(list []*Namespace) {
	tx.note(tx.store.replaceNamespaces(list))
}

// SetPod stores a pod.
func (tx *Tx) SetPod(p *Pod) { tx.note(tx.store.setPod(p.Key, p)) }

// DeletePod removes a pod; an unknown one is no error.
func (tx *Tx) DeletePod(k Key) { tx.note(tx.store.setPod(k, nil)) }

// ReplacePods makes the given pods the only ones.
func (tx *Tx) ReplacePods(list []*Pod) {
	tx.note(tx.store.replacePods(list))
}

// SetPolicy stores a policy.
func (tx *Tx) SetPolicy(p *Policy) { tx.note(tx.store.setPolicy(p.Key, p)) }

// DeletePolicy removes a policy; an unknown one is no error.
func (tx *Tx) DeletePolicy(k Key) { tx.note(tx.store.setPolicy(k, nil)) }

// ReplacePolicies makes the given policies the only ones.
func (tx *Tx) ReplacePolicies(list []*Policy) {
	tx.note(tx.store.replacePolicies(list))
}

// HeardPolicies records the version of the policies that the store has with this batch: all changes up to it
// are there. By itself it is no change.
func (tx *Tx) HeardPolicies(version string) { tx.store.heard = version }

// SetDiagnostics replaces the diagnostics of one origin: an object or a file. Origins must be
// comparable values. Those about Services are for SetServiceDiagnostics.
func (tx *Tx) SetDiagnostics(origin any, list []Diagnostic) {
	tx.note(tx.store.setDiagnostics(origin, list))
}

func (s *Store) setDiagnostics(origin any, list []Diagnostic) (changed bool) {
	if !s.diagnostics.set(origin, list) {
		return false
	}
	s.told = nil
	return true
}

// SetSynced records that the first complete list of a kind is in the store.
func (tx *Tx) SetSynced(k Kind) {
	if tx.store.synced[k] {
		return
	}
	tx.store.synced[k] = true
	tx.note(slices.Contains(Kinds(), k))
	tx.noteProxied(slices.Contains(ServiceKinds(), k))
}

// SetSource records an identifier of the current content (for manifests a digest of the files), so
// that a caller can find out whether it is enforced yet.
func (tx *Tx) SetSource(id string) {
	changed := tx.store.source != id
	tx.note(changed)
	tx.noteProxied(changed)
	tx.store.source = id
}

func (tx *Tx) note(changed bool) { tx.changed = tx.changed || changed }
