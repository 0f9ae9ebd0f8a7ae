// SPDX-License-Identifier: Apache-2.0

package kube

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// judged is a policy and what was wrong with it.
type judged struct {
	policy *cluster.Policy
	found  []cluster.Diagnostic
}

// policies keeps policies together with their diagnostics.
type policies struct {
	findings
	fresh int // entries of a list since it was trimmed last
}

func newPolicySink(store *cluster.Store) *sink[*networkingv1.NetworkPolicy, judged] {
	p := &policies{findings: newFindings(convert.KindPolicy, (*cluster.Tx).SetDiagnostics)}
	return &sink[*networkingv1.NetworkPolicy, judged]{
		store: store, kind: cluster.Policies, convert: judge, set: p.set, remove: p.remove, replace: p.replace,
		key: func(j judged) cluster.Key { return j.policy.Key }, trim: p.trim,
		heard: (*cluster.Tx).HeardPolicies,
	}
}

func judge(np *networkingv1.NetworkPolicy) judged {
	p, found := convert.Policy(np)
	return judged{p, found}
}

func (p *policies) set(tx *cluster.Tx, j judged) {
	tx.SetPolicy(j.policy)
	p.tell(tx, j.policy.Key, j.found)
}

func (p *policies) remove(tx *cluster.Tx, k cluster.Key) {
	tx.DeletePolicy(k)
	p.tell(tx, k, nil)
}

func (p *policies) replace(tx *cluster.Tx, list []judged) {
	here := make(map[cluster.Key]bool, len(list))
	all := make([]*cluster.Policy, len(list))
	for i, j := range list {
		all[i] = j.policy
		here[j.policy.Key] = true
		p.tell(tx, j.policy.Key, j.found)
	}
	p.forget(tx, here)
	tx.ReplacePolicies(all)
}

// trim takes the rules away for which there is no room, now and then: a list of
// policies may be larger than the memory of a node.
func (p *policies) trim(list []judged) {
	p.fresh += list[len(list)-1].policy.Size()
	if p.fresh < 4*cluster.MaxNamespaceEntries {
		return
	}
	p.fresh = 0
	all := make([]*cluster.Policy, len(list))
	for i, j := range list {
		all[i] = j.policy
	}
	cluster.Trim(all)
	for i := range list {
		list[i].policy = all[i]
	}
}
