// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strings"
	"testing"
)

func auditing(name string, audit bool) *Policy {
	return &Policy{Key: Key{"shop", name}, Audit: audit, Subject: Everything(), IsolatesIngress: true}
}

// Without the operator's leave, which is the zero value, every policy is enforced, and those that ask for
// audit mode are named as long as they do.
func TestAuditModeIsForbiddenUnlessAllowed(t *testing.T) {
	s := NewStore()
	named := func() (names []string) {
		for _, d := range s.Take().Diagnostics {
			if strings.Contains(d.Message, "audit mode is forbidden") && d.Cure != "" {
				names = append(names, d.Object.Name)
			}
		}
		return names
	}
	enforced := func() {
		t.Helper()
		for _, p := range s.Snapshot().Policies {
			if p.Audit {
				t.Errorf("%s is in audit mode", p.Key)
			}
		}
	}
	asks := auditing("a", true)
	s.Update(func(tx *Tx) { tx.SetPolicy(asks); tx.SetPolicy(auditing("b", false)) })
	if got := named(); len(got) != 1 || got[0] != "a" || !asks.Audit {
		t.Errorf("named are %v; the given policy is unchanged: %t", got, asks.Audit)
	}
	enforced()
	s.Update(func(tx *Tx) { tx.ReplacePolicies([]*Policy{auditing("a", false), auditing("c", true)}) })
	if got := named(); len(got) != 1 || got[0] != "c" {
		t.Errorf("after a list: %v", got)
	}
	enforced()
	before := s.Snapshot().Revision
	s.Update(func(tx *Tx) { tx.ReplacePolicies([]*Policy{auditing("a", false), auditing("c", true)}) })
	if now := s.Snapshot().Revision; now != before {
		t.Errorf("the same list is a change: revision %d, then %d", before, now)
	}
	s.Update(func(tx *Tx) { tx.DeletePolicy(Key{"shop", "c"}) })
	if got := named(); len(got) != 0 {
		t.Errorf("after the policy is gone: %v", got)
	}
}

func TestAuditModeIsAllowed(t *testing.T) {
	s := NewStore()
	s.Allow(Allowance{Audit: true})
	s.Update(func(tx *Tx) { tx.SetPolicy(auditing("a", true)) })
	if p := s.Snapshot().Policies[0]; !p.Audit || len(s.Take().Diagnostics) != 0 {
		t.Errorf("policy %+v", p)
	}
	if p := auditing("a", true).withoutRules(); !p.Audit {
		t.Error("above its budget a policy in audit mode is enforced")
	}
}
