// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/netpol/program"
)

// A connection that was cut is revived by its answering end: it does not know
// that it was cut, and its next packet begins a connection in the other
// direction, which nobody may have denied. So what it would send is kept in
// sets, and dropped before anything else is asked. The rules are there only
// while a connection is cut: who never changes a policy pays nothing for them.
const (
	// CounterCut counts packets of the answering end of a connection that was cut.
	CounterCut = "drop-cut"
	chainCut   = "cut"
)

// How long an element stays after its last packet. An answering end that is
// silent for longer begins something new: after that time the kernel has
// forgotten a UDP flow anyway (120 s), and an SCTP end has sent a heartbeat
// (every 30 s). A TCP server may be silent for hours and then go on, so its
// element stays until the datapath takes it out.
const (
	cutTimeoutUDP  = 5 * time.Minute
	cutTimeoutSCTP = time.Hour
)

// Refused is a packet that the sets drop: what the answering end of a connection
// that was cut would send. The protocol is TCP, UDP or SCTP.
type Refused struct {
	Protocol         program.Protocol
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

func cutProtocols() []program.Protocol {
	return []program.Protocol{program.TCP, program.UDP, program.SCTP}
}

// cutSet returns the set, without elements.
func cutSet(f program.Family, p program.Protocol) *Set {
	s := &Set{Name: perFamily("cut", f) + "-" + p.String(), Key: either(f == program.IPv6, Flow6, Flow4),
		Comment: "what would revive connections that were cut"}
	switch p {
	case program.UDP:
		s.Timeout = cutTimeoutUDP
	case program.SCTP:
		s.Timeout = cutTimeoutSCTP
	}
	return s
}

func cutSets() (list []*Set) {
	for _, f := range program.Families {
		for _, p := range cutProtocols() {
			list = append(list, cutSet(f, p))
		}
	}
	return list
}

// cutRules returns the chain that asks the sets. TCP and SCTP have packets that
// begin a connection; those are judged like any other.
func cutRules() *Chain {
	c := &Chain{Name: chainCut}
	for _, p := range cutProtocols() {
		for _, f := range program.Families {
			s := cutSet(f, p)
			var list []Statement
			if p != program.UDP {
				list = append(list, MatchUnderWay{p})
			}
			list = append(list, FlowIn{Family: f, Protocol: p, Set: s.Name})
			if s.Timeout > 0 {
				list = append(list, FlowIn{Family: f, Protocol: p, Set: s.Name, Rearm: true})
			}
			c.add("", append(list, Count{CounterCut}, Verdict{Kind: Drop})...)
		}
	}
	return c
}

// addCut has the sets asked, if there is anything in them. It is for
// postrouting, where every packet to a pod and from the node passes, and for the
// guard: the answers of a masqueraded connection go to the node's own address,
// and end there.
func (c *Chain) addCut(n Node) {
	if n.Cut {
		c.add("of connections that were cut", Verdict{Jump, chainCut})
	}
}

// MatchUnderWay matches packets that begin no connection: of TCP those that are
// no plain SYN, of SCTP those that are no INIT.
type MatchUnderWay struct{ Protocol program.Protocol }

// FlowIn asks a set for source, port, destination and port of a packet. With
// Rearm it lets the element's time begin anew instead.
type FlowIn struct {
	Family   program.Family
	Protocol program.Protocol
	Set      string
	Rearm    bool
}

const (
	tcpFlags     = 13 // offset in the header
	tcpBegin     = 0x02
	tcpBeginMask = 0x17 // fin, syn, rst, ack
	sctpChunk    = 12   // offset of the first chunk's type
	sctpInit     = 1
)

func (s MatchUnderWay) encode(e *encoder) {
	e.needProtocol(s.Protocol)
	if s.Protocol == program.SCTP {
		e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: sctpChunk, Len: 1})
		e.cmp(expr.CmpOpNeq, []byte{sctpInit})
		return
	}
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{tcpBeginMask}, Xor: []byte{0}})
	e.cmp(expr.CmpOpNeq, []byte{tcpBegin})
}

func (s MatchUnderWay) text() string {
	if s.Protocol == program.SCTP {
		return "meta l4proto sctp @th,96,8 != 1"
	}
	return "tcp flags & (fin | syn | rst | ack) != syn"
}

func (s FlowIn) encode(e *encoder) {
	e.needFamily(s.Family)
	e.needProtocol(s.Protocol)
	e.flow(s.Family)
	if s.Rearm {
		e.add(&expr.Dynset{SrcRegKey: register, SetName: s.Set, Operation: unix.NFT_DYNSET_OP_UPDATE})
		return
	}
	e.add(&expr.Lookup{SourceRegister: register, SetName: s.Set})
}

// flow loads addresses and ports into registers that follow each other.
func (e *encoder) flow(f program.Family) {
	words := uint32(1) // of an address; a port has one
	if f == program.IPv6 {
		words = 4
	}
	e.address(Source, f, register)
	e.add(&expr.Payload{DestRegister: word(words), Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2})
	e.address(Destination, f, word(words+1))
	e.add(&expr.Payload{DestRegister: word(2*words + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

// word returns the register of four bytes with that number, as the kernel lists
// it: by the register of 16 bytes that begins there, if one does.
func word(n uint32) uint32 {
	if n%4 == 0 {
		return unix.NFT_REG_1 + n/4
	}
	return unix.NFT_REG32_00 + n
}

func (s FlowIn) text() string {
	ip := perFamily("ip", s.Family)
	if s.Family == program.IPv4 {
		ip = "ip"
	}
	key := fmt.Sprintf("%s saddr . %s sport . %s daddr . %s dport", ip, s.Protocol, ip, s.Protocol)
	if s.Rearm {
		return fmt.Sprintf("update @%s { %s }", s.Set, key)
	}
	return key + " @" + s.Set
}

// CutOps returns the changes that add packets to the sets and take others out.
// To take out what is not there is no error: the kernel may have forgotten it.
func CutOps(add, remove []Refused) []Op {
	ops := map[string]*Op{}
	op := func(r Refused) *Op {
		s := cutSet(program.FamilyOf(r.Src), r.Protocol)
		if ops[s.Name] == nil {
			ops[s.Name] = &Op{Kind: ChangeCut, Set: s}
		}
		return ops[s.Name]
	}
	for _, r := range add {
		o := op(r)
		o.Entries = append(o.Entries, r.entry())
	}
	for _, r := range remove {
		o := op(r)
		o.Removed = append(o.Removed, r.entry())
	}
	var list []Op
	for _, name := range slices.Sorted(maps.Keys(ops)) {
		list = append(list, *ops[name])
	}
	return list
}

// JoinOps returns two lists of changes as one, in the order for Commit.
func JoinOps(a, b []Op) []Op {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y Op) int { return int(x.Kind) - int(y.Kind) })
	return all
}

func (r Refused) entry() Entry {
	return Entry{Key: Key{Element: program.Element{Addr: r.Src, Port: r.SrcPort}, Dst: netip.AddrPortFrom(r.Dst, r.DstPort)}}
}

// changeCut adds what is taken out first, so that it is there.
func (c *Conn) changeCut(op Op) error {
	set := c.set(op.Set)
	if len(op.Removed) > 0 {
		gone := elements(op.Set, op.Removed)
		if err := errors.Join(c.nl.SetAddElements(set, gone), c.nl.SetDeleteElements(set, gone)); err != nil {
			return err
		}
	}
	if len(op.Entries) == 0 {
		return nil
	}
	return c.nl.SetAddElements(set, elements(op.Set, op.Entries))
}

// Refusals returns what the sets of a table hold.
func Refusals(t *Table) (list []Refused) {
	for _, f := range program.Families {
		for _, p := range cutProtocols() {
			want := cutSet(f, p)
			s := t.Set(want.Name)
			if s == nil || s.Key != want.Key {
				continue
			}
			for _, e := range s.Entries {
				list = append(list, Refused{p, e.Key.Addr, e.Key.Dst.Addr(), e.Key.Port, e.Key.Dst.Port()})
			}
		}
	}
	return list
}

// ReadRefusals returns what the sets hold in the kernel. A set that is not there
// holds nothing.
func (c *Conn) ReadRefusals() ([]Refused, error) {
	t := &Table{}
	for _, s := range cutSets() {
		list, err := c.elements(c.set(s))
		if IsMissing(err) {
			continue
		}
		if err == nil {
			err = s.take(list)
		}
		if err != nil {
			return nil, fmt.Errorf("reading set %s: %w", s.Name, err)
		}
		t.Sets = append(t.Sets, s)
	}
	return Refusals(t), nil
}

// LocalPods returns the local pods that a table knows, by address and name. Of no
// table, and of one that was written before anybody knew a pod, they are those of
// the program. A name that was clipped is that of the program's pod, if it may be
// the same; so is one that is not there, since nobody says that another pod had
// the address, and allowed connections would be deleted.
func LocalPods(t *Table, p *program.Program) (pods []program.Pod) {
	if t == nil {
		return p.Pods
	}
	now := make(map[netip.Addr]program.Pod, len(p.Pods))
	for _, pod := range p.Pods {
		now[pod.Addr] = pod
	}
	for _, f := range program.Families {
		s := t.Set(perFamily("to", f))
		if s == nil {
			continue
		}
		for _, e := range s.Entries {
			name, id, _ := strings.Cut(e.Comment, " ")
			tenant, _, _ := strings.Cut(name, "/")
			pod := program.Pod{Addr: e.Key.Addr, Name: name, ID: id, Tenant: tenant}
			same, ok := now[pod.Addr]
			if ok && (e.Comment == "" || clip(podComment(same)) == e.Comment || id == "" && name == same.Name) {
				pod.Name, pod.ID, pod.Tenant = same.Name, same.ID, same.Tenant // the comment may be cut off, or old
			}
			if pod.Addr != SelfTest(f) {
				pods = append(pods, pod)
			}
		}
	}
	if len(pods) == 0 {
		return p.Pods
	}
	slices.SortFunc(pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
	return pods
}
