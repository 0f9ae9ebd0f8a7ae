// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// An ICMP error belongs to the connection that it quotes, whoever sends it: the
// kernel calls it related, and it meets no nat chain. It carries what its sender
// likes. So errors are judged one by one: those of a pod's own connections pass, and
// others are packets of the pod like any.
const (
	chainRelated        = "related"
	chainICMPErrors     = "icmp-errors"
	chainErrorAntispoof = "error-antispoof"
)

// judgesErrors reports whether any chain hands errors on to these.
func judgesICMPErrors(p *program.Program, n program.Node) bool {
	return n.FilterHook || !n.NoGuard || hasUntrackedInput(p, n)
}

// errorChains returns the chains that judge what is related to a connection.
func errorChains(n program.Node) []*nft.Chain {
	related := &nft.Chain{Name: chainRelated} // what a helper expects is new, and judged by the nat chains
	for _, f := range inet.Families {
		related.Add("", nft.MatchICMPAny{Family: f}, nft.GoTo(chainICMPErrors))
	}
	return []*nft.Chain{related, icmpErrors(n), errorAntispoof()}
}

// icmpErrors accepts an error whose sender is an end of the connection: conntrack
// relates an error only if it goes to the other end. All other errors need an egress
// rule, if their sender is isolated.
func icmpErrors(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainICMPErrors}
	for _, f := range inet.Families { // a pod's link-local address is in no set
		own := inet.LinkLocal(f)
		c.Add("link-local error of the node itself", nft.MatchNoOutput{},
			nft.MatchPrefix{Field: nft.Source, Prefix: own}, nft.MatchCtReplySource{Prefix: own},
			nft.Verdict{Kind: nft.Return})
	}
	addAntispoofTo(c, n, chainErrorAntispoof)
	if n.OpenUnknown {
		c.Add("bridged", nft.Lookup{Field: nft.OutputInterface, Set: setPodLinks}, nft.MatchNoInput{},
			nft.JumpTo(chainErrorAntispoof))
	}
	for _, f := range inet.Families {
		for _, end := range []nft.Field{nft.CtOriginalSource, nft.CtReplySource} {
			c.Add("sender is an end of the connection",
				nft.Lookup{Field: end, Family: f, Set: perFamily(setHairpin, f)}, nft.Verdict{Kind: nft.Return})
		}
	}
	addEgress(c)
	return c
}

// errorAntispoof checks the source as that of a first packet, except where all pods are
// unisolated: a pod that routes forwards errors of others.
func errorAntispoof() *nft.Chain {
	c := &nft.Chain{Name: chainErrorAntispoof}
	for _, f := range []nft.Field{nft.InputInterface, nft.OutputInterface} {
		var open []nft.Statement
		if f == nft.OutputInterface {
			open = append(open, nft.MatchNoInput{})
		}
		open = append(open, nft.Lookup{Field: f, Set: setPodLinks}, nft.Lookup{Field: f, Set: setEgressLinks,
			Negate: true})
		c.Add("unisolated pods", append(open, nft.Verdict{Kind: nft.Return})...)
	}
	c.Add("", nft.GoTo(chainAntispoof))
	return c
}
