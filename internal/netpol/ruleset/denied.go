// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Packets that no rule of a policy allows are recorded, if the node is asked to: the last
// rule of a pod's chain leads to these chains instead of dropping by itself. Each pod has a
// rate of its own, so that one that is flooded hides no record of another, and within it each
// peer has one, so that one that floods hides no other. Pairs that find no room, because somebody
// has many addresses, share a rate of the pod. Packets that are allowed meet none of this, and
// without recording there is none of it.
const (
	chainDeniedIngress = "denied-ingress"
	chainDeniedEgress  = "denied-egress"

	// deniedRate and deniedBurst are in packets a second for each pair of a pod and a peer, in a family
	// and direction, and for the rest of the pod's peers together.
	deniedRate, deniedBurst = 10, 20
	// deniedPodRate and deniedPodBurst are those of all pairs of a pod.
	deniedPodRate, deniedPodBurst = 50, 100
	// deniedMemory is how long a pod's rate is kept after its last denied packet, deniedPairMemory that of
	// a pair.
	deniedMemory, deniedPairMemory = time.Minute, 10 * time.Second
	// deniedPairs is how many pairs have a rate of their own at the same time. Pods are fewer.
	deniedPairs = 1 << 16
)

// DeniedBytes is how much of a denied packet is recorded: the headers of any packet, with the ports.
const DeniedBytes = 128

// The prefixes of records.
const (
	DeniedIngress = "podwall ingress"
	DeniedEgress  = "podwall egress"
	AuditIngress  = "podwall audit ingress"
	AuditEgress   = "podwall audit egress"
)

// recordingChain is the chain of one direction that records packets, and then drops them, or lets those
// pass that policies in audit mode would drop.
func recordingChain(d program.Direction, audit bool, group uint16) *nft.Chain {
	c := &nft.Chain{Name: recordingName(d, audit)}
	field, prefix := nft.Destination, DeniedIngress
	switch {
	case d == program.Egress && audit:
		field, prefix = nft.Source, AuditEgress
	case d == program.Egress:
		field, prefix = nft.Source, DeniedEgress
	case audit:
		prefix = AuditIngress
	}
	last, log := nft.Verdict{Kind: ending(d, audit)}, nft.Log{Group: group, Prefix: prefix, Bytes: DeniedBytes}
	for _, f := range inet.Families {
		sets := rateSets(c.Name, f)
		c.Add("", nft.LimitPerAddress{Field: nft.SourceDestination, Family: f, Set: sets[0].Name, Rate: deniedRate,
			Burst: deniedBurst}, nft.LimitPerAddress{Field: field, Family: f, Set: sets[1].Name, Rate: deniedPodRate,
			Burst: deniedPodBurst}, log, last)
		c.Add("", nft.LimitPerAddress{Field: field, Family: f, Set: sets[2].Name, Rate: deniedRate,
			Burst: deniedBurst}, log, last)
	}
	c.Add("", last)
	return c
}

// rateSets are the sets of a recording chain: of pairs, of pods, and of what is left of pods.
func rateSets(chain string, f inet.Family) []*nft.Set {
	pair, addr := either(f == inet.IPv6, nft.Pair6, nft.Pair4), either(f == inet.IPv6, nft.Addr6, nft.Addr4)
	return []*nft.Set{
		{Name: perFamily(chain+"-pairs", f), Key: pair, Kept: true, Timeout: deniedPairMemory, Size: deniedPairs,
			Comment: "rate of the records of a pod and a peer"},
		{Name: perFamily(chain+"-pods", f), Key: addr, Kept: true, Timeout: deniedMemory, Size: deniedPairs,
			Comment: "rate of the records of a pod"},
		{Name: perFamily(chain+"-rest", f), Key: addr, Kept: true, Timeout: deniedMemory, Size: deniedPairs,
			Comment: "rate of the other records of a pod"},
	}
}

func recordingName(d program.Direction, audit bool) string {
	switch {
	case audit:
		return auditPrefix + d.String()
	case d == program.Egress:
		return chainDeniedEgress
	}
	return chainDeniedIngress
}

// ending is the fate of a packet that no rule of a chain allows. What policies in audit mode would drop
// goes on as if no policy selected the pod: behind its egress comes the ingress of the destination.
func ending(d program.Direction, audit bool) nft.VerdictKind {
	switch {
	case !audit:
		return nft.Drop
	case d == program.Egress:
		return nft.Return
	}
	return nft.Accept
}

// recordingParts returns the chains and sets of recording; none if it is off.
func recordingParts(n program.Node, audits bool) (chains []*nft.Chain, sets []*nft.Set) {
	if n.DeniedGroup == 0 {
		return nil, nil
	}
	modes := []bool{false}
	if audits {
		modes = append(modes, true)
	}
	for _, audit := range modes {
		for _, d := range []program.Direction{program.Ingress, program.Egress} {
			c := recordingChain(d, audit, n.DeniedGroup)
			chains = append(chains, c)
			for _, f := range inet.Families {
				sets = append(sets, rateSets(c.Name, f)...)
			}
		}
	}
	return chains, sets
}

// end is the end of a pod's chain.
func (l look) end(d program.Direction) nft.Rule {
	counter := CounterIngress
	switch {
	case l.audit && d == program.Egress:
		counter = CounterAuditEgress
	case l.audit:
		counter = CounterAuditIngress
	case d == program.Egress:
		counter = CounterEgress
	}
	last := nft.Verdict{Kind: ending(d, l.audit)}
	if l.recorded {
		last = nft.GoTo(recordingName(d, l.audit))
	}
	return nft.Rule{Statements: []nft.Statement{nft.Count{Counter: counter}, last}}
}
