// SPDX-License-Identifier: Apache-2.0

// Package decide says what one pass has to change in the kernel so that a program
// becomes true on this node: Facts and a program go in, a Decision comes out.
// Package datapath reads the facts before and commits the decision after.
//
// It is pure: it asks no kernel and reads no clock. What it remembers from one
// decision to the next (who was missing since when, what was judged by what, which
// packets are refused) is its own, in a Decider. Two rules are written here and
// nowhere else: which addresses are believed to be pods', and which connections that
// exist must end (ADR 0007, 0012).
package decide

import (
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Guard says when the guard against invalid and untracked packets is on.
type Guard uint8

// The settings of the guard. Auto is on unless somebody else's rules drop
// invalid packets.
const (
	GuardAuto Guard = iota
	GuardOn
	GuardOff
)

// Options are the operator's choices.
type Options struct {
	// FilterHook judges packets in filter chains instead of nat chains.
	FilterHook bool
	Guard      Guard
	// OpenUnknown lets pass what is to or from an address that no known pod has.
	OpenUnknown bool
	// KeepConnections lets connections that exist go on when a change denies them.
	KeepConnections bool
}

// Problem is a state of the node in which policies are not fully true.
type Problem struct {
	Subject, Text, Cure string
	Blocking            bool
}

// Decision is what one pass changes. Its fields are in the order in which that is
// done.
type Decision struct {
	// LookAgain is when to look again for what is missing; 0 for never. Release is
	// true if a connection is allowed again, so that later it need not be refused any
	// more. Both hold whatever becomes of the rest.
	LookAgain time.Duration
	Release   bool
	// Bridges have to show their packets to the IP hooks. It comes before Program,
	// whose table keeps how they were.
	Bridges []inet.Path
	// Known is the program without the pods that are held. Connections of its pods
	// may be their own from now on, so whoever looks for those from before a pod is
	// told before a rule lets one through.
	Known *program.Program
	// Former are addresses that have a new owner, where nobody looks beside the loop:
	// their connections end before a rule speaks of the new owner.
	Former []netip.Addr
	// Node is how the pods of Program are wired. The table that binds bridge ports
	// comes before the rules that let anybody behind them speak.
	Node program.Node
	// Program is what the rules say, in one transaction with Refuse, Again and Admit:
	// an end that answers must not revive what is about to be ended.
	Program *program.Program
	Refuse  map[program.Refused]string // by whose pod
	Again   []program.Refused          // somebody took them out of the kernel's sets
	Admit   map[program.Refused]bool
	// Held are closed by Program until connections from before them were looked for,
	// which begins when they are closed.
	Held Held
	// Learn is what connections are judged by from now on, if that is new. Then they
	// are scanned, as far as the change can have denied some: never before the rules
	// are in the kernel.
	Learn *Basis
	Scan  cut.Scopes
	// Moved are addresses that went from one pod to another, where nobody looks beside
	// the loop: what came since Former was let through by the rules for the former
	// owner, so they are looked for once more by Judge.
	Moved []netip.Addr
	Judge *cut.Judge
	// End are deleted once they are refused. More is true if others wait to be ended.
	End  []cut.Cut
	More bool
	Findings

	closed closure
}

// Basis is what connections are judged by.
type Basis struct {
	Program *program.Program
	Node    []netip.Addr
	Groups  cut.Groups
}

// Findings are what a decision says to people.
type Findings struct {
	Filter   bool // judged in filter chains
	Guard    bool
	GuardWhy string
	Problems []Problem
	// Unsure counts the addresses of pods for which something is missing, by what: see
	// Unsures. They are counted at once; problems name them after a while.
	Unsure map[string]int
	// Strangers are interfaces that are closed and behind which no pod is known,
	// sorted. They are here at once; a problem names them after a while.
	Strangers []string
	// Elsewhere are addresses of pods that are closed, since routes lead elsewhere.
	Elsewhere []netip.Addr
	// Lost says of whom refused connections are given up, since there are too many.
	Lost *Overflow
}

// Overflow says that too many connections are refused.
type Overflow struct {
	Count   int
	Tenants []string // that have more than a fair share, sorted
}

// Decider decides, one pass after another. It is used by one goroutine.
type Decider struct {
	options Options
	// Forced is true if nat chains do not work here, so that packets are judged in
	// filter chains whatever the operator chose.
	Forced bool
	// Lenience is for how long a packet is refused after its connection is allowed
	// again.
	Lenience time.Duration

	unreached missing              // no route
	unbound   missing              // no bridge port
	bypassed  missing              // not behind an interface of the IP layer
	misled    missing              // routes lead elsewhere
	unclear   missing              // a bridge's port has it, and something speaks against it
	contested missing              // a bridge leads to it, and no port is believed to have it
	trusted   trusted              // routes did not lead elsewhere before
	strangers map[string]time.Time // interfaces behind which no pod is known, since when
	belief    belief

	judged  *program.Program // the program up to which connections are judged
	closed  closure          // and what was closed for groups then
	judge   *cut.Judge       // of that program, by basis; nil if connections cannot be read
	basis   Basis
	wired   program.Node // how its pods are wired
	refused map[program.Refused]refusal
	asked   asked // what they were judged by
	count   uint64
}

// New returns a decider that knows nothing yet.
func New(o Options) *Decider {
	return &Decider{options: o, Lenience: lenience, trusted: trusted{}, strangers: map[string]time.Time{}, unreached: missing{},
		unbound: missing{}, bypassed: missing{}, misled: missing{}, unclear: missing{}, contested: missing{},
		refused: map[program.Refused]refusal{}}
}

// Decide says what to change so that the program is in force. all are the pods that
// are wanted; p is all, or without what the kernel refuses.
func (d *Decider) Decide(all, p *program.Program, w Wiring, c Connections) Decision {
	out := d.Wire(all, p, w)
	d.connections(&out, w, c)
	return out
}

// Wire decides without the connections: their part of the decision is empty, and
// what is refused stays so.
func (d *Decider) Wire(all, p *program.Program, w Wiring) Decision {
	out := Decision{}
	p = d.believe(all, p, w, &out)
	out.Problems = append(out.Problems, d.lookForPods(all, w)...)
	out.Problems = append(out.Problems, d.lookForStrangers(w, &out)...)
	out.Unsure = d.unsure()
	out.LookAgain = d.nextLook(w)
	p, out.Held = d.hold(p, w)
	out.Program, out.Known = p, out.Held.known
	out.Bridges = d.podBridges(all, w)
	d.node(all, w, &out)
	out.Node.Cut = len(d.refused) > 0
	return out
}

// Forget drops what is known of connections, after the rules were away on purpose.
func (d *Decider) Forget() {
	d.judged, d.judge, d.Forced = nil, nil, false
	clear(d.refused)
}

// Missing reports whether something is missing that comes without a notification.
func (d *Decider) Missing() bool {
	return len(d.unreached)+len(d.unbound)+len(d.bypassed)+len(d.misled)+len(d.unclear)+len(d.contested) > 0
}
