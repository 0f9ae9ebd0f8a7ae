// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// Survey is what other programs' rules mean for ours.
type Survey struct {
	// Before are nat chains of others that run before ours at the same hook: an
	// source translation there ends the walk, and ours sees nothing.
	Before []string
	// DropsInvalid is true if somebody drops invalid packets at forward, in both
	// families, so that our guard is not needed. Rules of iptables-legacy cannot
	// be seen by netlink and count as missing.
	DropsInvalid bool
}

// Survey looks at the base chains of all tables.
func (c *Conn) Survey() (Survey, error) {
	chains, err := c.nl.ListChains()
	if err != nil {
		return Survey{}, fmt.Errorf("listing chains: %w", err)
	}
	var s Survey
	drops := map[nftables.TableFamily]bool{}
	for _, k := range chains {
		if k.Table.Name == TableName && k.Table.Family == nftables.TableFamilyINet || k.Hooknum == nil || k.Priority == nil {
			continue
		}
		if precedes(k) {
			s.Before = append(s.Before, fmt.Sprintf("%s %s priority %d", k.Table.Name, k.Name, *k.Priority))
		}
		if !drops[k.Table.Family] && *k.Hooknum == *nftables.ChainHookForward && ipFamily(k.Table.Family) {
			found, err := c.dropsInvalid(k, chains, 0)
			if err != nil && !IsMissing(err) { // a table may go while we look
				return Survey{}, err
			}
			drops[k.Table.Family] = found
		}
	}
	slices.Sort(s.Before)
	s.DropsInvalid = drops[nftables.TableFamilyINet] || drops[nftables.TableFamilyIPv4] && drops[nftables.TableFamilyIPv6]
	return s, nil
}

func ipFamily(f nftables.TableFamily) bool {
	return f == nftables.TableFamilyINet || f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyIPv6
}

// precedes reports whether a chain runs before ours. Of two chains with equal
// priority the one that was loaded later runs first, so equal counts.
func precedes(k *nftables.Chain) bool {
	hook := *k.Hooknum == *nftables.ChainHookPostrouting || *k.Hooknum == *nftables.ChainHookInput
	return k.Type == nftables.ChainTypeNAT && hook && ipFamily(k.Table.Family) && int32(*k.Priority) <= PriorityNAT
}

// maxJumps bounds how far a forward chain is followed.
const maxJumps = 3

// dropsInvalid looks for a rule that drops every invalid packet, in a chain or
// where the chain jumps to without a condition.
func (c *Conn) dropsInvalid(k *nftables.Chain, all []*nftables.Chain, depth int) (bool, error) {
	rules, err := c.nl.GetRules(k.Table, k)
	if err != nil {
		return false, fmt.Errorf("reading chain %s: %w", k.Name, err)
	}
	for _, r := range rules {
		invalid, verdict, other := classify(r.Exprs)
		switch {
		case other || verdict == nil:
		case invalid && verdict.Kind == expr.VerdictDrop:
			return true, nil
		case !invalid && verdict.Kind == expr.VerdictAccept:
			return false, nil // nothing behind it is reached
		case !invalid && depth < maxJumps && (verdict.Kind == expr.VerdictJump || verdict.Kind == expr.VerdictGoto):
			for _, next := range all {
				if next.Table.Name == k.Table.Name && next.Table.Family == k.Table.Family && next.Name == verdict.Chain {
					if found, err := c.dropsInvalid(next, all, depth+1); found || err != nil {
						return found, err
					}
				}
			}
		}
	}
	return false, nil
}

// classify takes a rule apart: does it ask for invalid packets, what does it
// do, and does it have other conditions that we do not follow.
func classify(list []expr.Any) (invalid bool, verdict *expr.Verdict, other bool) {
	for i := 0; i < len(list); i++ {
		switch e := list[i].(type) {
		case *expr.Counter:
		case *expr.Verdict:
			verdict = e
		case *expr.Match:
			state, known := matchesInvalid(e)
			invalid, other = invalid || state, other || !known
		case *expr.Ct:
			if !asksInvalid(list[i:]) {
				return false, verdict, true
			}
			invalid = true
			i += 2
		default:
			other = true
		}
	}
	return invalid, verdict, other
}

// asksInvalid recognises `ct state invalid`, alone or in a list, as nft writes
// it: load, mask, compare with zero.
func asksInvalid(list []expr.Any) bool {
	if len(list) < 3 {
		return false
	}
	ct, ok1 := list[0].(*expr.Ct)
	mask, ok2 := list[1].(*expr.Bitwise)
	compare, ok3 := list[2].(*expr.Cmp)
	if !ok1 || !ok2 || !ok3 || ct.Key != expr.CtKeySTATE || len(mask.Mask) != 4 {
		return false
	}
	bits := CtState(binaryutil.NativeEndian.Uint32(mask.Mask))
	return bits&CtInvalid != 0 && compare.Op == expr.CmpOpNeq && bytes.Equal(compare.Data, make([]byte, 4))
}

// matchesInvalid recognises iptables' conntrack match; known is false for
// matches that narrow the rule in a way that we do not follow.
func matchesInvalid(m *expr.Match) (invalid, known bool) {
	const (
		invalidBit = 1 << 0 // XT_CONNTRACK_STATE_INVALID
		byState    = 1 << 0 // XT_CONNTRACK_STATE
	)
	switch m.Name {
	case "comment", "nfacct":
		return false, true
	case "conntrack":
		if info, ok := m.Info.(*xt.ConntrackMtinfo3); ok && info.MatchFlags == byState && info.InvertFlags == 0 {
			return info.StateMask&invalidBit != 0, true
		}
	}
	return false, false
}
