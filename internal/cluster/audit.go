// SPDX-License-Identifier: Apache-2.0

package cluster

import "fmt"

// ModeAnnotation of a policy says whether it is enforced: audit, or enforce, which is the default.
const ModeAnnotation = "podwall.io/mode"

// The modes.
const (
	ModeAudit   = "audit"
	ModeEnforce = "enforce"
)

// auditOrigin is the origin of the diagnostic about a policy that asks for audit mode in vain.
type auditOrigin struct{ policy Key }

// enforcedUnlessAllowed returns the policy as it counts here: without the operator's leave every policy
// is enforced. Who may change a policy could otherwise switch isolation off, and nobody would see it in
// the policy's rules.
func (s *Store) enforcedUnlessAllowed(p *Policy) *Policy {
	if !p.Audit || s.extras.allowed.Audit {
		return p
	}
	enforced := *p
	enforced.Audit = false
	return &enforced
}

// enforcedUnlessAllowedAll does it for a complete list, and notes which policies ask in vain.
func (s *Store) enforcedUnlessAllowedAll(list []*Policy) (counted []*Policy, changed bool) {
	listed := make(map[Key]bool, len(list))
	counted = make([]*Policy, len(list))
	for i, p := range list {
		listed[p.Key] = true
		changed = s.noteAudit(p.Key, p) || changed
		counted[i] = s.enforcedUnlessAllowed(p)
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
		return s.setDiagnostics(auditOrigin{k}, nil)
	}
	return s.setDiagnostics(auditOrigin{k}, []Diagnostic{{Severity: Warning, Kind: "NetworkPolicy", Object: k,
		Field:   fmt.Sprintf("metadata.annotations[%s]", ModeAnnotation),
		Message: "audit mode is forbidden here: the policy is enforced",
		Cure:    "ask the operator of the cluster for --policy-audit=allow, or remove the annotation"}})
}
