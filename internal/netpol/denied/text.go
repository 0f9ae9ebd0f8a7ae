// SPDX-License-Identifier: Apache-2.0

package denied

import (
	"fmt"
	"strings"

	"github.com/podwall/podwall/internal/netpol/program"
)

// Peer is the other end of the subject.
func (r *Record) Peer() End {
	if r.Direction == program.Egress.String() {
		return r.Destination
	}
	return r.Source
}

// Service is the port and the protocol, as 8080/tcp, or the protocol alone.
func (r *Record) Service() string {
	if r.Port == 0 {
		return r.Protocol
	}
	return fmt.Sprintf("%d/%s", r.Port, r.Protocol)
}

// By says which Service the client called, or may have called; "" if none.
func (r *Record) By() string {
	switch {
	case r.Called != nil:
		return "by " + r.Called.String()
	case len(r.Services) > 0:
		return "behind Service " + strings.Join(r.Services, ", ")
	}
	return ""
}

// Reason says which policies deny the flow, and which rule comes nearest.
func (r *Record) Reason() string {
	var names []string
	for _, p := range r.Policies {
		names = append(names, p.String())
	}
	text := fmt.Sprintf("no %s rule of %s allows it", r.Direction, strings.Join(names, ", "))
	if r.Verdict == WouldDeny {
		text = "not enforced, in audit mode: " + text
	}
	switch {
	case r.Nearest != nil:
		return text + "; nearest: " + r.Nearest.String()
	case r.NearestSkipped:
		return text + "; the nearest was not looked for: too many flows were denied at once"
	}
	return text
}

// Sentence says the record in one sentence, from the subject's side.
func (r *Record) Sentence() string {
	way := "from"
	if r.Direction == program.Egress.String() {
		way = "to"
	}
	what := "denied"
	if r.Verdict == WouldDeny {
		what = "would deny"
	}
	by := r.By()
	if by != "" {
		by = " " + by
	}
	return fmt.Sprintf("%s %s %s %s%s: %s", what, r.Service(), way, r.Peer(), by, r.Reason())
}

// String names the rule and the half of it that is not met. Rules are counted from 0, as in the API.
func (n *Nearest) String() string {
	what := "neither its peers nor its ports match"
	switch {
	case n.PeerMatches:
		what = "its peers match, its ports do not"
	case n.PortMatches:
		what = "its ports match, its peers do not"
	}
	return fmt.Sprintf("%s, rule %d: %s", n.Policy, n.Rule, what)
}
