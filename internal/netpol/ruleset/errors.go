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
	chainRelated     = "related"
	chainErrors      = "errors"
	chainErrorSource = "error-source"
)

// judgesErrors reports whether any chain hands errors on to these.
func judgesErrors(p *program.Program, n program.Node) bool {
	return n.FilterHook || !n.NoGuard || hasUntrackedInput(p, n)
}

// errorChains returns the chains that judge what is related to a connection.
func errorChains(n program.Node) []*nft.Chain {
	related := &nft.Chain{Name: chainRelated} // what a helper expects is new, and judged by the nat chains
	for _, f := range inet.Families {
		related.Add("", nft.MatchICMPAny{Family: f}, nft.GoTo(chainErrors))
	}
	return []*nft.Chain{related, judgeErrors(n), errorSource()}
}

// judgeErrors lets an error pass whose sender is an end of the connection: the kernel
// takes an error only if it goes to the other end. All other errors need an egress
// rule, if their sender is isolated.
func judgeErrors(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainErrors}
	for _, f := range inet.Families { // nobody assigned a pod's link-local address, so it is in no set
		own := inet.LinkLocal(f)
		c.Add("of the node's own on a link", nft.MatchNoOutput{}, nft.MatchPrefix{Field: nft.Source, Prefix: own}, nft.MatchAnswerer{Prefix: own},
			nft.Verdict{Kind: nft.Return})
	}
	addSourceTo(c, n, chainErrorSource)
	if n.OpenUnknown {
		c.Add("inside one bridge", nft.Lookup{Field: nft.OutputInterface, Set: setPodLinks}, nft.MatchNoInput{}, nft.JumpTo(chainErrorSource))
	}
	for _, f := range inet.Families {
		for _, end := range []nft.Field{nft.BeganSource, nft.AnswerSource} {
			c.Add("of its own connection", nft.Lookup{Field: end, Family: f, Set: perFamily("self", f)}, nft.Verdict{Kind: nft.Return})
		}
	}
	addEgress(c)
	return c
}

// errorSource has the source checked as that of a first packet, but where all pods
// are open: one that routes passes on errors of others.
func errorSource() *nft.Chain {
	c := &nft.Chain{Name: chainErrorSource}
	for _, f := range []nft.Field{nft.InputInterface, nft.OutputInterface} {
		var open []nft.Statement
		if f == nft.OutputInterface {
			open = append(open, nft.MatchNoInput{})
		}
		open = append(open, nft.Lookup{Field: f, Set: setPodLinks}, nft.Lookup{Field: f, Set: setEgressLinks, Negate: true})
		c.Add("open pods", append(open, nft.Verdict{Kind: nft.Return})...)
	}
	c.Add("", nft.GoTo(chainSource))
	return c
}
