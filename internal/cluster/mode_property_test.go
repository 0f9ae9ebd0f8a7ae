// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// modes is what a store was told, and the naive answer.
type modes struct {
	allowed    Allowance
	namespaces map[string]string
	policies   map[string]*Policy // by namespace/name
}

func (m *modes) audits(p *Policy) bool {
	switch {
	case p.OwnMode:
		return p.Audit && m.allowed.Audit
	case m.allowed.AuditNamespaces:
		return m.namespaces[p.Key.Namespace] == ModeAudit
	}
	return false
}

func drawPolicy(t *rapid.T) *Policy {
	p := &Policy{Key: Key{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "in"),
		rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")}, Subject: Everything(), IsolatesIngress: true}
	p.OwnMode = rapid.Bool().Draw(t, "own mode")
	p.Audit = p.OwnMode && rapid.Bool().Draw(t, "audit")
	if rapid.IntRange(1, 4).Draw(t, "large") == 4 {
		p.leftOut = MaxNamespaceEntries
	}
	return p
}

func drawNamespace(t *rapid.T) *Namespace {
	return &Namespace{Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"),
		Mode: rapid.SampledFrom([]string{"", ModeAudit, ModeAudit, ModeEnforce, `"Audit"`}).Draw(t, "mode")}
}

// change changes the store and the naive form alike.
func (m *modes) change(t *rapid.T, tx *Tx) {
	switch rapid.IntRange(0, 5).Draw(t, "change") {
	case 0:
		n := drawNamespace(t)
		m.namespaces[n.Name] = n.Mode
		tx.SetNamespace(n)
	case 1:
		n := drawNamespace(t)
		delete(m.namespaces, n.Name)
		tx.DeleteNamespace(n.Name)
	case 2:
		var list []*Namespace
		m.namespaces = map[string]string{}
		if rapid.Bool().Draw(t, "any") {
			n := drawNamespace(t)
			list, m.namespaces[n.Name] = []*Namespace{n}, n.Mode
		}
		tx.ReplaceNamespaces(list)
	case 3:
		p := drawPolicy(t)
		m.policies[p.Key.String()] = p
		tx.SetPolicy(p)
	case 4:
		p := drawPolicy(t)
		delete(m.policies, p.Key.String())
		tx.DeletePolicy(p.Key)
	case 5:
		p, q := drawPolicy(t), drawPolicy(t)
		m.policies = map[string]*Policy{p.Key.String(): p, q.Key.String(): q}
		tx.ReplacePolicies(slices.Collect(maps.Values(m.policies)))
	}
}

// Whatever the order in which namespaces and policies come, and whatever is allowed, a policy is in audit
// mode by its own annotation, else by that of its namespace; what has no effect is reported.
func TestTheModeOfANamespaceIsThatOfItsPolicies(t *testing.T) {
	audited := 0
	rapid.Check(t, func(t *rapid.T) {
		m := &modes{namespaces: map[string]string{}, policies: map[string]*Policy{}}
		m.allowed = rapid.SampledFrom([]Allowance{{}, {Audit: true}, {Audit: true, AuditNamespaces: true},
			{Audit: true, AuditNamespaces: true}}).Draw(t, "allowed")
		s := NewStore()
		s.Allow(m.allowed)
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			before := s.Snapshot()
			s.Update(func(tx *Tx) { m.change(t, tx) })
			now := s.Snapshot()
			if len(now.Policies) != len(m.policies) || now.AuditNamespaces != m.allowed.AuditNamespaces {
				t.Fatalf("%d policies, want %d", len(now.Policies), len(m.policies))
			}
			changed := len(before.Policies) != len(now.Policies)
			for i, p := range now.Policies {
				if p.Audit != m.audits(m.policies[p.Key.String()]) || p.ByNamespace && p.OwnMode {
					t.Fatalf("%+v of %v, namespaces %v, allowed %+v", p, m.policies[p.Key.String()], m.namespaces, m.allowed)
				}
				if p.Audit {
					audited++
				}
				changed = changed || before.Policies[i].Audit != p.Audit
			}
			if changed && before.Revision == now.Revision {
				t.Fatal("a change of a mode is no change")
			}
			m.reported(t, s.Take().Diagnostics)
		}
	})
	if audited == 0 {
		t.Error("no policy was in audit mode")
	}
}

// reported checks that exactly the namespaces are named whose annotation has no effect.
func (m *modes) reported(t *rapid.T, list []Diagnostic) {
	var named, want []string
	for _, d := range list {
		if d.Kind == "Namespace" && strings.Contains(d.Field, ModeAnnotation) && d.Cure != "" {
			named = append(named, d.Object.Name)
		}
	}
	for name, mode := range m.namespaces {
		if mode == `"Audit"` || mode == ModeAudit && !m.allowed.AuditNamespaces {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if slices.Sort(named); !slices.Equal(named, want) {
		t.Fatalf("named are %v, want %v", named, want)
	}
}
