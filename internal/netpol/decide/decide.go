// SPDX-License-Identifier: Apache-2.0

// Package decide determines the changes of one pass to the kernel that enforce a program on this
// node: it turns Facts and a program into a Decision. Package datapath reads the facts before and
// commits the decision after.
//
// It is pure: it reads neither the kernel nor a clock. The state from one decision to the next
// (since when pods are missing, which program connections were judged by, which packets are
// refused) is kept in a Decider. Two rules are written here and nowhere else: which addresses are
// trusted to be pods', and which existing connections must end (ADR 0007, 0012).
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

// The settings of the guard. Auto is on unless the rules of another program drop invalid packets.
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
	// OpenUnknown accepts packets to or from an address that belongs to no known pod.
	OpenUnknown bool
	// KeepConnections lets existing connections continue when a change denies them.
	KeepConnections bool
	// DeniedGroup is the NFLOG group by which denied packets are recorded, 0 to record none.
	DeniedGroup uint16
}

// Problem is a state of the node in which policies are not fully enforced.
type Problem struct {
	Subject, Text, Cure string
	Blocking            bool
}

// Decision lists the changes of one pass. Its fields are in the order in which they are committed.
type Decision struct {
	// CheckAgain is when to check again for missing facts; 0 for never. Release is true if a refused
	// connection is allowed again, so that it can be released later. Both hold even if the rest
	// fails.
	CheckAgain time.Duration
	Release    bool
	// Bridges must pass their packets to the IP hooks. This comes before Program, whose table saves
	// the former settings.
	Bridges []inet.Path
	// Known is the program without the pods that are held. From now on its pods may have
	// connections of their own, so the search for connections older than a pod is notified before a
	// rule allows one.
	Known *program.Program
	// Former are addresses with a new owner, if no search runs outside the loop: their connections
	// end before a rule names the new owner.
	Former []netip.Addr
	// Node is the wiring of the pods of Program. The table that binds bridge ports comes before the
	// rules that allow traffic behind them.
	Node program.Node
	// Program is the content of the rules, in one transaction with Refuse, Again and Admit: a reply
	// must not revive a connection that is about to be ended.
	Program *program.Program
	Refuse  map[program.Refused]string // by tenant of the pod
	Again   []program.Refused          // missing in the kernel's sets, to be added again
	Admit   map[program.Refused]bool
	// Held are closed by Program until connections older than the pods were searched for. The
	// search begins when they are closed.
	Held Held
	// Learn is what connections are judged by from now on, if it is new. Then the connections that
	// the change may have denied are scanned, but never before the rules are in the kernel.
	// Those of Recheck need it only in case that a packet was on its way: a search found none of
	// them, and nothing let them in since.
	Learn         *Basis
	Scan, Recheck cut.Scopes
	// Moved are addresses that moved from one pod to another, if no search runs outside the loop.
	// Connections opened since Former were accepted under the previous owner's rules, so they are
	// searched for again with Judge.
	Moved []netip.Addr
	Judge *cut.Judge
	// End are deleted once they are refused. More is true if further connections wait to be ended.
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

// Findings are the messages of a decision for people.
type Findings struct {
	Filter   bool // verdicts are in filter chains
	Guard    bool
	GuardWhy string
	Problems []Problem
	// Unsure counts the addresses of pods for which a fact is missing, by that fact: see Unsures.
	// They are counted immediately; problems name them after a while.
	Unsure map[string]int
	// WithoutPod are closed interfaces without a known pod behind them, sorted. They are listed
	// immediately; a problem names them after a while.
	WithoutPod []string
	// Elsewhere are addresses of pods that are closed because their routes lead elsewhere.
	Elsewhere []netip.Addr
	// Lost names the tenants whose refused connections are dropped because there are too many.
	Lost *Overflow
}

// Overflow means that too many connections are refused.
type Overflow struct {
	Count   int
	Tenants []string // with more than a fair share, sorted
}

// Decider decides, one pass after another. It is used by one goroutine.
type Decider struct {
	options Options
	// Forced is true if nat chains do not work here, so that filter chains are used whatever the
	// operator chose.
	Forced bool
	// Unrecorded is why the kernel refuses the rules that record denied packets: there are none of
	// them, whatever the operator chose. It is empty if the kernel does not.
	Unrecorded string
	// Lenience is how long a packet is refused after its connection is allowed again.
	Lenience time.Duration

	unreached missing              // no route
	unbound   missing              // no bridge port
	bypassed  missing              // not behind an interface of the IP layer
	misled    missing              // routes lead elsewhere
	unclear   missing              // a bridge port has it, but other facts contradict that
	contested missing              // a bridge leads to it, but no port is trusted to have it
	trusted   trusted              // routes did not lead elsewhere before
	strangers map[string]time.Time // interfaces without a known pod, since when
	belief    belief

	judged  *program.Program // the program by which connections are judged
	closed  closure          // and the groups that were closed then
	judge   *cut.Judge       // of that program, by basis; nil if connections cannot be read
	basis   Basis
	wired   program.Node // the wiring of its pods
	refused map[program.Refused]refusal
	asked   asked // what they were judged by
	count   uint64
}

// New returns a decider without state.
func New(o Options) *Decider {
	return &Decider{options: o, Lenience: lenience, trusted: trusted{}, strangers: map[string]time.Time{},
		unreached: missing{},
		unbound:   missing{}, bypassed: missing{}, misled: missing{}, unclear: missing{}, contested: missing{},
		refused: map[program.Refused]refusal{}}
}

// Decide returns the changes that put the program in force. all is the wanted program; p is all, or
// all without the pods that the kernel refuses.
func (d *Decider) Decide(all, p *program.Program, w Wiring, c Connections) Decision {
	out := d.Wire(all, p, w)
	d.connections(&out, w, c)
	return out
}

// Wire decides without the connections: their part of the decision is empty, and refused
// connections stay refused.
func (d *Decider) Wire(all, p *program.Program, w Wiring) Decision {
	out := Decision{}
	p = d.believe(all, p, w, &out)
	out.Problems = append(out.Problems, d.lookForPods(all, w)...)
	out.Problems = append(out.Problems, d.lookForStrangers(w, &out)...)
	out.Unsure = d.unsure()
	out.CheckAgain = d.nextLook(w)
	p, out.Held = d.hold(p, w)
	out.Program, out.Known = p, out.Held.known
	out.Bridges = d.podBridges(all, w)
	d.node(all, w, &out)
	out.Node.Cut = len(d.refused) > 0
	return out
}

// Forget drops the state about connections, after the rules were removed on purpose.
func (d *Decider) Forget() {
	d.judged, d.judge, d.Forced = nil, nil, false
	clear(d.refused)
}

// Records reports whether the rules record denied packets.
func (d *Decider) Records() bool { return d.options.DeniedGroup != 0 && d.Unrecorded == "" }

// Missing reports whether a fact is missing whose arrival is not notified.
func (d *Decider) Missing() bool {
	return len(d.unreached)+len(d.unbound)+len(d.bypassed)+len(d.misled)+len(d.unclear)+len(d.contested) > 0
}
