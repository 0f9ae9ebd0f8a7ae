// SPDX-License-Identifier: Apache-2.0

package ruleset

import "github.com/podwall/podwall/internal/netpol/program"

// Policies in audit mode are chains like others, of a name of their own, whose last rule counts and
// records a packet instead of dropping it. The entries of their pods in the verdict maps lead to them, so
// that the other pods meet nothing of it.
const auditPrefix = "audit-"

// The counters of packets that policies in audit mode would drop. Like the others they are always there:
// a counter cannot be taken away without its count.
const (
	CounterAuditIngress = "audit-ingress"
	CounterAuditEgress  = "audit-egress"
)

func hasAudits(p *program.Program) bool {
	for i := range p.Pods {
		if p.Pods[i].AuditIngress != "" || p.Pods[i].AuditEgress != "" {
			return true
		}
	}
	return false
}

// chainsOf names the chains of a pod's entries in the verdict maps; empty for none.
func chainsOf(pod program.Pod) (ingress, egress string) {
	audit := look{audit: true}
	if ingress = pod.Ingress; ingress == "" && pod.AuditIngress != "" {
		ingress = audit.name(pod.AuditIngress)
	}
	if egress = pod.Egress; egress == "" && pod.AuditEgress != "" {
		egress = audit.name(pod.AuditEgress)
	}
	return ingress, egress
}

// renditions are the chains of a program in the looks that its pods need. Pods that are isolated and pods
// that are audited may share a chain.
func renditions(p *program.Program, l look) (list []rendition) {
	if !hasAudits(p) {
		for _, c := range p.Chains {
			list = append(list, rendition{c, l})
		}
		return list
	}
	audited, isolated := map[string]bool{}, map[string]bool{}
	for i := range p.Pods {
		pod := &p.Pods[i]
		isolated[pod.Ingress], isolated[pod.Egress] = true, true
		audited[pod.AuditIngress], audited[pod.AuditEgress] = true, true
	}
	for _, c := range p.Chains {
		if isolated[c.Name] || !audited[c.Name] {
			list = append(list, rendition{c, l})
		}
		if audited[c.Name] {
			watching := l
			watching.audit = true
			list = append(list, rendition{c, watching})
		}
	}
	return list
}
