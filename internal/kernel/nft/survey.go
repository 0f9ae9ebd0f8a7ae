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

// Survey describes the effect of other programs' rules on ours.
type Survey struct {
	// Before are nat chains of other programs that run before ours at postrouting or input: a translation
	// there ends the evaluation of the hook's nat chains, so ours does not see the packet. BeforeRouting are
	// those at prerouting.
	Before, BeforeRouting []string
	// DropsInvalid is true if other rules drop invalid packets at forward, in both families, so that our
	// guard is not needed. Rules of iptables-legacy are not visible over netlink and do not count.
	DropsInvalid bool
	// Known are the chains of other programs whose name the caller recognises.
	Known []string
}

// Survey reads the base chains of all tables except those with our name and their copies. A nat chain with
// priority ours or lower counts as before ours. It lists the chains whose name is known.
func (c *Conn) Survey(ours int32, known func(chain string) bool) (Survey, error) {
	chains, err := c.nl.ListChains()
	if err != nil {
		return Survey{}, fmt.Errorf("listing chains: %w", err)
	}
	var s Survey
	drops := map[nftables.TableFamily]bool{}
	dormant, err := c.dormant()
	if err != nil {
		return Survey{}, err
	}
	for _, k := range chains {
		own := (k.Table.Name == c.id.Name || k.Table.Name == c.id.Copy().Name) && ipFamily(k.Table.Family)
		if !own && known(k.Name) {
			s.Known = append(s.Known, k.Name)
		}
		if own || k.Hooknum == nil || k.Priority == nil || dormant[tableKey{k.Table.Family, k.Table.Name}] {
			continue
		}
		s.order(k, ours)
		if !drops[k.Table.Family] && *k.Hooknum == *nftables.ChainHookForward && ipFamily(k.Table.Family) {
			found, err := c.follow(k, chains, 0)
			if err != nil && !IsMissing(err) { // a table may be deleted during the survey
				return Survey{}, err
			}
			drops[k.Table.Family] = found == stopped
		}
	}
	slices.Sort(s.Before)
	slices.Sort(s.BeforeRouting)
	s.DropsInvalid = drops[nftables.TableFamilyINet] || drops[nftables.TableFamilyIPv4] &&
		drops[nftables.TableFamilyIPv6]
	return s, nil
}

type tableKey struct {
	family nftables.TableFamily
	name   string
}

// dormant lists the tables whose chains were switched off.
func (c *Conn) dormant() (map[tableKey]bool, error) {
	tables, err := c.nl.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	off := map[tableKey]bool{}
	for _, t := range tables {
		off[tableKey{t.Family, t.Name}] = t.Flags&nftables.TableFlagDormant != 0
	}
	return off, nil
}

func ipFamily(f nftables.TableFamily) bool {
	return f == nftables.TableFamilyINet || f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyIPv6
}

// order records a chain that runs before ours. Of two chains with equal priority the one loaded later
// runs first, so equal counts. The fourth hook of nat chains, output, has none of ours.
func (s *Survey) order(k *nftables.Chain, ours int32) {
	if k.Type != nftables.ChainTypeNAT || !ipFamily(k.Table.Family) || int32(*k.Priority) > ours {
		return
	}
	name := fmt.Sprintf("%s %s priority %d", k.Table.Name, k.Name, *k.Priority)
	switch *k.Hooknum {
	case *nftables.ChainHookPostrouting, *nftables.ChainHookInput:
		s.Before = append(s.Before, name)
	case *nftables.ChainHookPrerouting:
		s.BeforeRouting = append(s.BeforeRouting, name)
	}
}

// maxJumps bounds the depth of jumps followed from a forward chain.
const maxJumps = 3

// fate is what happens to every invalid packet in a chain.
type fate uint8

const (
	unsure  fate = iota // some may be accepted, or it cannot be determined
	falls               // all reach the end
	stopped             // all are dropped
)

// follow evaluates a chain for an invalid packet.
func (c *Conn) follow(k *nftables.Chain, all []*nftables.Chain, depth int) (fate, error) {
	rules, err := c.nl.GetRules(k.Table, k)
	if err != nil {
		return unsure, fmt.Errorf("reading chain %s: %w", k.Name, err)
	}
	some := false // some packets may have returned to the calling chain
	for _, r := range rules {
		met, verdict := classify(r.Exprs)
		if met == never || verdict == nil || verdict.Kind == expr.VerdictContinue {
			continue
		}
		jump := verdict.Kind == expr.VerdictJump || verdict.Kind == expr.VerdictGoto
		switch {
		case verdict.Kind == expr.VerdictDrop && met == always && !some:
			return stopped, nil
		case verdict.Kind == expr.VerdictDrop && met == always:
			return falls, nil // the returned packets are the caller's
		case verdict.Kind == expr.VerdictDrop:
			continue // matches fewer packets
		case verdict.Kind == expr.VerdictReturn && depth > 0 && met == always:
			return falls, nil
		case verdict.Kind == expr.VerdictReturn && depth > 0:
			some = true
			continue
		case !jump || met != always || depth == maxJumps:
			return unsure, nil
		}
		result, err := c.jump(k, verdict.Chain, all, depth)
		if err != nil || result != falls || verdict.Kind == expr.VerdictGoto {
			return result, err
		}
	}
	return falls, nil
}

func (c *Conn) jump(from *nftables.Chain, to string, all []*nftables.Chain, depth int) (fate, error) {
	for _, k := range all {
		if k.Table.Name == from.Table.Name && k.Table.Family == from.Table.Family && k.Name == to {
			return c.follow(k, all, depth+1)
		}
	}
	return unsure, nil
}

// applies says whether a rule matches invalid packets.
type applies uint8

const (
	perhaps applies = iota // it has conditions that are not evaluated
	never
	always
)

// classify analyses a rule: whether invalid packets match it, and its verdict. The only condition that it
// evaluates is the connection state.
func classify(list []expr.Any) (met applies, verdict *expr.Verdict) {
	met = always
	for i := 0; i < len(list); i++ {
		state := always
		switch e := list[i].(type) {
		case *expr.Counter:
		case *expr.Verdict:
			verdict = e
		case *expr.Match:
			state = matchesInvalid(e)
		case *expr.Ct:
			if state = asksInvalid(list[i:]); state != perhaps {
				i += 2
			}
		default:
			state = perhaps
		}
		switch {
		case state == never:
			met = never
		case state == perhaps && met == always:
			met = perhaps
		}
	}
	return met, verdict
}

// asksInvalid recognises `ct state …` as nft encodes it: load, mask, compare with zero.
func asksInvalid(list []expr.Any) applies {
	if len(list) < 3 {
		return perhaps
	}
	ct, ok1 := list[0].(*expr.Ct)
	mask, ok2 := list[1].(*expr.Bitwise)
	compare, ok3 := list[2].(*expr.Cmp)
	if !ok1 || !ok2 || !ok3 || ct.Key != expr.CtKeySTATE || len(mask.Mask) != 4 ||
		compare.Op != expr.CmpOpNeq || !bytes.Equal(compare.Data, make([]byte, 4)) {
		return perhaps
	}
	if CtState(binaryutil.NativeEndian.Uint32(mask.Mask))&CtInvalid == 0 {
		return never
	}
	return always
}

// matchesInvalid recognises iptables' conntrack match by state, and matches that exclude no packet.
func matchesInvalid(m *expr.Match) applies {
	const (
		invalidBit = 1 << 0 // XT_CONNTRACK_STATE_INVALID
		byState    = 1 << 0 // XT_CONNTRACK_STATE
	)
	switch m.Name {
	case "comment", "nfacct":
		return always
	case "conntrack":
		info, ok := m.Info.(*xt.ConntrackMtinfo3)
		switch {
		case !ok || info.MatchFlags != byState || info.InvertFlags != 0:
			return perhaps
		case info.StateMask&invalidBit == 0:
			return never
		}
		return always
	}
	return perhaps
}
