// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"slices"
)

// ModeAnnotation says whether a policy, or all policies of a namespace that have no mode of their own,
// are enforced: audit, or enforce, which is the default.
const ModeAnnotation = "podwall.io/mode"

// The modes.
const (
	ModeAudit   = "audit"
	ModeEnforce = "enforce"
)

// modeOrigin is the origin of the diagnostic about the mode of a policy, or of a namespace, which has no
// namespace itself.
type modeOrigin struct{ object Key }

// counted returns the policy as it counts here: without the operator's leave every policy is enforced. Who
// may change a policy, or a namespace, could otherwise switch isolation off, and nobody would see it in the
// policy's rules. A policy that has a mode of its own is not asked about that of its namespace, also if it
// was not understood.
func (s *Store) counted(p *Policy) *Policy {
	asks := p.Audit && !p.ByNamespace
	byNamespace := !p.OwnMode && !asks && s.extras.allowed.AuditNamespaces && s.asksForAudit(p.Key.Namespace)
	audit := byNamespace || asks && s.extras.allowed.Audit
	if p.Audit == audit && p.ByNamespace == byNamespace {
		return p
	}
	one := *p
	one.Audit, one.ByNamespace = audit, byNamespace
	return &one
}

func (s *Store) asksForAudit(namespace string) bool {
	return s.namespaces.objects.get(Key{Name: namespace}).mode() == ModeAudit
}

// countedAll does it for a complete list, and notes which policies ask in vain.
func (s *Store) countedAll(list []*Policy) (counted []*Policy, changed bool) {
	listed := make(map[Key]bool, len(list))
	counted = make([]*Policy, len(list))
	for i, p := range list {
		listed[p.Key] = true
		changed = s.noteAudit(p.Key, p) || changed
		counted[i] = s.counted(p)
	}
	for p := range s.policies.objects.all() {
		if !listed[p.Key] {
			changed = s.noteAudit(p.Key, nil) || changed
		}
	}
	return counted, changed
}

// noteAudit says of a policy that asks for audit mode that it is enforced. p is nil for one that is gone.
func (s *Store) noteAudit(k Key, p *Policy) (changed bool) {
	if s.extras.allowed.Audit {
		return false
	}
	if p == nil || !p.Audit {
		return s.setDiagnostics(modeOrigin{k}, nil)
	}
	return s.setDiagnostics(modeOrigin{k}, []Diagnostic{{Severity: Warning, Kind: "NetworkPolicy", Object: k,
		Field:   modeField(),
		Message: "audit mode is forbidden here: the policy is enforced",
		Cure:    "ask the operator of the cluster for --policy-audit=allow, or remove the annotation"}})
}

func modeField() string { return fmt.Sprintf("metadata.annotations[%s]", ModeAnnotation) }

// setNamespace stores a namespace, or removes it if n is nil, with the mode of its policies.
func (s *Store) setNamespace(name string, n *Namespace) (changed bool) {
	before := s.namespaces.objects.get(Key{Name: name}).mode()
	changed = s.namespaces.set(Key{Name: name}, n)
	if before != n.mode() {
		changed = s.applyMode(name) || changed
	}
	return changed
}

func (n *Namespace) mode() string {
	if n == nil {
		return ""
	}
	return n.Mode
}

// replaceNamespaces makes the namespaces the only ones.
func (s *Store) replaceNamespaces(list []*Namespace) (changed bool) {
	modes := map[string]bool{} // namespaces that have one, or had
	note := func(n *Namespace) {
		if n.Mode != "" {
			modes[n.Name] = true
		}
	}
	for n := range s.namespaces.objects.all() {
		note(n)
	}
	for _, n := range list {
		note(n)
	}
	changed = s.namespaces.replace(list)
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		changed = s.applyMode(name) || changed
	}
	return changed
}

// applyMode applies the mode of a namespace to its policies. It costs as much as they are many.
func (s *Store) applyMode(name string) (changed bool) {
	changed = s.noteMode(name)
	if b := s.budgets[name]; b != nil {
		for _, k := range slices.SortedFunc(maps.Keys(b.policies), Key.Compare) {
			if p := s.policies.objects.get(k); p != nil {
				changed = s.policies.set(k, s.counted(p)) || changed
			}
		}
	}
	return changed
}

// noteMode says of a namespace that its mode has no effect.
func (s *Store) noteMode(name string) (changed bool) {
	mode := s.namespaces.objects.get(Key{Name: name}).mode()
	d := Diagnostic{Severity: Warning, Kind: "Namespace", Object: Key{Name: name}, Field: modeField()}
	switch {
	case mode == "", mode == ModeEnforce:
		return s.setDiagnostics(modeOrigin{Key{Name: name}}, nil)
	case mode == ModeAudit && s.extras.allowed.AuditNamespaces:
		return s.setDiagnostics(modeOrigin{Key{Name: name}}, nil)
	case mode == ModeAudit:
		d.Message = "audit mode of whole namespaces is not allowed here: the policies are enforced"
		d.Cure = "ask the operator of the cluster for --policy-audit=allow-namespaces, or annotate policies"
	default:
		d.Message = mode + " is no mode: the policies are enforced"
		d.Cure = "write " + ModeAudit + " or " + ModeEnforce
	}
	return s.setDiagnostics(modeOrigin{Key{Name: name}}, []Diagnostic{d})
}
