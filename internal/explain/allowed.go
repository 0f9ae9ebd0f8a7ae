// SPDX-License-Identifier: Apache-2.0

package explain

import "github.com/podwall/podwall/internal/netpol/program"

// Allowed returns the verdict of Explain without the reasons, at a small part of its cost:
// for questions about every pair of a cluster.
func (c *Cluster) Allowed(f Flow) (bool, error) {
	egress, ingress, err := c.Sides(f)
	return egress && ingress, err
}

// Sides returns the verdicts of both sides as Explain has them.
func (c *Cluster) Sides(f Flow) (egress, ingress bool, err error) {
	src, dst, err := c.parties(f)
	if err != nil {
		return false, false, err
	}
	return c.passes(program.Egress, src, f, src, dst), c.passes(program.Ingress, dst, f, src, dst), nil
}

// Audited reports whether a flow is allowed, in one of the directions, only because policies are in audit
// mode.
func (c *Cluster) Audited(f Flow) (bool, error) {
	src, dst, err := c.parties(f)
	if err != nil {
		return false, err
	}
	return c.audited(program.Egress, src, f, src, dst) || c.audited(program.Ingress, dst, f, src, dst), nil
}

func (c *Cluster) audited(d program.Direction, subject party, f Flow, src, dst party) bool {
	return subject.node() != "" &&
		program.WouldDrop(c.node(subject.node()).program, d, seenBy(subject.node(), f, src, dst))
}

// passes reports whether the policies of one end let the flow pass.
func (c *Cluster) passes(d program.Direction, subject party, f Flow, src, dst party) bool {
	if subject.node() == "" {
		return true // no node judges it
	}
	return c.node(subject.node()).judge.Allows(d, seenBy(subject.node(), f, src, dst))
}
