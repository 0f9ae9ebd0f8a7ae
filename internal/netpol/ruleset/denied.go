// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Packets that no rule of a policy allows are recorded, if the node is asked to: the last
// rule of a pod's chain leads to these chains instead of dropping by itself. Each pod has
// a rate of its own, so that one that is flooded hides no record of another. Packets that
// are allowed meet none of this, and without recording there is none of it.
const (
	chainDeniedIngress = "denied-ingress"
	chainDeniedEgress  = "denied-egress"

	// deniedRate and deniedBurst are in packets a second for each pod, family and direction.
	deniedRate, deniedBurst = 10, 20
	// deniedMemory is how long a pod's rate is kept after its last denied packet.
	deniedMemory = time.Minute
)

// DeniedBytes is how much of a denied packet is recorded: the headers of any packet, with the ports.
const DeniedBytes = 128

// The prefixes of records.
const (
	DeniedIngress = "podwall ingress"
	DeniedEgress  = "podwall egress"
)

// deniedChain is the chain of one direction that records and drops.
func deniedChain(d program.Direction, group uint16) *nft.Chain {
	c, field, prefix := &nft.Chain{Name: chainDeniedIngress}, nft.Destination, DeniedIngress
	if d == program.Egress {
		c.Name, field, prefix = chainDeniedEgress, nft.Source, DeniedEgress
	}
	for _, f := range inet.Families {
		c.Add("", nft.LimitPerAddress{Field: field, Family: f, Set: perFamily(c.Name, f), Rate: deniedRate,
			Burst: deniedBurst},
			nft.Log{Group: group, Prefix: prefix, Bytes: DeniedBytes})
	}
	c.Add("", nft.Verdict{Kind: nft.Drop})
	return c
}

// deniedParts returns the chains and sets of recording; none if it is off.
func deniedParts(n program.Node) (chains []*nft.Chain, sets []*nft.Set) {
	if n.DeniedGroup == 0 {
		return nil, nil
	}
	for _, d := range []program.Direction{program.Ingress, program.Egress} {
		c := deniedChain(d, n.DeniedGroup)
		chains = append(chains, c)
		for _, f := range inet.Families {
			sets = append(sets, &nft.Set{Name: perFamily(c.Name, f), Key: either(f == inet.IPv6, nft.Addr6, nft.Addr4),
				Kept: true, Timeout: deniedMemory, Comment: "rate of the records of a pod"})
		}
	}
	return chains, sets
}

// deny is the end of a pod's chain.
func (l look) deny(d program.Direction) nft.Rule {
	counter, chain := CounterIngress, chainDeniedIngress
	if d == program.Egress {
		counter, chain = CounterEgress, chainDeniedEgress
	}
	if !l.recorded {
		return dropped(counter, "")
	}
	return nft.Rule{Statements: []nft.Statement{nft.Count{Counter: counter}, nft.GoTo(chain)}}
}
