// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// strays are packets without a connection, as in stealth scans. A bare ACK is not among them: the kernel
// picks up a connection from it.
func (w *world) strays(t *testing.T, from, to string, v6 bool) []stage.Shot {
	t.Helper()
	dst := w.Addr(t, to, v6)
	var list []stage.Shot
	for _, k := range []struct {
		name  string
		flags uint8
	}{{"RST", packet.RST}, {"FIN", packet.FIN}, {"SYN+FIN", packet.SYN | packet.FIN}, {"NULL", 0},
		{"FIN+ACK", packet.FIN | packet.ACK}, {"SYN+ACK", packet.SYN | packet.ACK}} {
		list = append(list, w.Raw(t, k.name, from, to, packet.Packet{Dst: dst, Proto: packet.TCP, Flags: k.flags, SrcPort: 1000 + uint16(k.flags), DstPort: 80, Seq: 7, Window: 1000}))
	}
	return append(list, w.Raw(t, "UDP with a bad checksum", from, to,
		packet.Packet{Dst: dst, Proto: packet.UDP, SrcPort: 1000, DstPort: 80, BadChecksum: true}))
}

func (w *world) bareACK(t *testing.T, from, to string, v6 bool) stage.Shot {
	t.Helper()
	return w.Raw(t, "ACK", from, to, packet.Packet{Dst: w.Addr(t, to, v6), Proto: packet.TCP, Flags: packet.ACK, SrcPort: 999, DstPort: 80, Seq: 7, Window: 1000})
}

// paths are the paths on which the guarded pods can be reached.
func paths() [][2]string {
	return [][2]string{{near, victim}, {far, victim}, {jailed, open}, {jailed, yonder}}
}

// strayCounter counts forwarded packets without a connection: the guard's counter, or in filter chains that
// of the sender's or receiver's isolation.
func (w *world) strayCounter(from string) string {
	switch {
	case !w.Filter():
		return ruleset.CounterInvalid
	case from == jailed:
		return ruleset.CounterEgress
	}
	return ruleset.CounterIngress
}

func TestStrayPacketsToTheNodeAreStopped(t *testing.T) {
	for _, args := range [][]string{{"--datapath=nat"}, {"--datapath=filter"}, {"--invalid-guard=off"}} {
		eachWiring(t, stage.Setup{Args: args}, func(t *testing.T, w *world) {
			stage.Families(t, func(t *testing.T, v6 bool) {
				strays := append(w.strays(t, jailed, node1, v6), w.bareACK(t, jailed, node1, v6))
				for i := range strays {
					strays[i].To = open // nodes have no tap: the counters are read
				}
				w.Stopped(t, stage.Drops{ruleset.CounterEgress: uint64(len(strays))}, strays...)
			})
		})
	}
}

func TestStrayPacketsOfIsolatedPodsAreStopped(t *testing.T) {
	eachWiring(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, p := range paths() {
				strays := w.strays(t, p[0], p[1], v6)
				w.Stopped(t, stage.Drops{ruleset.CounterInvalid: uint64(len(strays))}, strays...)
			}
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 2}, w.bareACK(t, near, victim, v6), w.bareACK(t, far, victim, v6))
			w.Stopped(t, stage.Drops{ruleset.CounterEgress: 2}, w.bareACK(t, jailed, open, v6), w.bareACK(t, jailed, yonder, v6))
		})
	})
}

func TestStrayPacketsOfOpenPodsAreLeftAlone(t *testing.T) {
	eachWiring(t, stage.Setup{}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.Arrive(t, append(w.strays(t, near, yonder, v6), w.strays(t, far, open, v6)...)...)
			w.Arrive(t, w.strays(t, near, open, v6)...)
		})
	})
}

// The reason for the guard: such packets have no connection, so they do not enter the nat chain.
func TestStrayPacketsArriveWithoutTheGuard(t *testing.T) {
	eachWiring(t, stage.Setup{Args: []string{"--invalid-guard=off"}}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, p := range paths() {
				w.Arrive(t, w.strays(t, p[0], p[1], v6)...)
			}
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 2}, w.bareACK(t, near, victim, v6), w.bareACK(t, far, victim, v6))
		})
	})
}

func TestFilterChainsStopStrayPacketsWithoutAGuard(t *testing.T) {
	eachWiring(t, stage.Setup{Args: []string{"--datapath=filter", "--invalid-guard=off"}}, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, p := range paths() {
				counter := w.strayCounter(p[0])
				strays := append(w.strays(t, p[0], p[1], v6), w.bareACK(t, p[0], p[1], v6))
				w.Stopped(t, stage.Drops{counter: uint64(len(strays))}, strays...)
			}
		})
	})
}

func TestTheGuardLeavesWhenSomebodyElseDropsStrayPackets(t *testing.T) {
	eachWiring(t, stage.Setup{}, func(t *testing.T, w *world) {
		w.Enforce(t, stage.Usual()[0]) // no pod is isolated for egress
		other := w.dropInvalid(t, node1)
		w.awaitGuard(t, false)
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, p := range paths()[:2] {
				before := other.packets(t)
				strays := w.strays(t, p[0], p[1], v6)
				w.Stopped(t, stage.Drops{}, strays...)
				for end := time.Now().Add(stage.Patience); other.packets(t) < before+uint64(len(strays)) && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				if got := other.packets(t) - before; got != uint64(len(strays)) {
					t.Errorf("the other table dropped %d of %d", got, len(strays))
				}
				w.Stopped(t, stage.Drops{}, strays...) // all are in flight by now: check again
			}
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 1}, w.bareACK(t, near, victim, v6))
		})
		w.Enforce(t, stage.Usual()...) // no other rule filters errors of the jailed pod
		w.awaitGuard(t, true)
		w.Enforce(t, stage.Usual()[0])
		w.awaitGuard(t, false)
		other.delete(t)
		w.awaitGuard(t, true)
		strays := w.strays(t, near, victim, false)
		w.Stopped(t, stage.Drops{ruleset.CounterInvalid: uint64(len(strays))}, strays...)
	})
}

// awaitGuard waits until the agent of node1 has its guard, or not.
func (w *world) awaitGuard(t *testing.T, want bool) {
	t.Helper()
	for end := time.Now().Add(stage.Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		table, err := w.Conns[node1].Read()
		if err == nil && table != nil && (table.Chain("guard") != nil) == want { // a read may meet a change
			return
		}
	}
	t.Fatalf("the guard did not become %t", want)
}

// otherTable is a table of another program, loaded into a node.
type otherTable struct {
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain // whose first rule begins with a counter
	at    int             // place of the counter in the rule
}

// other opens an empty table in a node.
func (w *world) other(t *testing.T, node string) *otherTable {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(w.NS(t, node).FD()), nftables.AsLasting())
	stage.Check(t, err)
	t.Cleanup(func() { stage.Check(t, conn.CloseLasting()) })
	return &otherTable{conn: conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "other"})}
}

func (o *otherTable) add(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) {
	accept := nftables.ChainPolicyAccept
	c := o.conn.AddChain(&nftables.Chain{Table: o.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority, Policy: &accept})
	for _, r := range rules {
		o.conn.AddRule(&nftables.Rule{Table: o.table, Chain: c, Exprs: r})
	}
	o.chain = c
}

// dropInvalid loads what kube-proxy's iptables mode has at forward.
func (w *world) dropInvalid(t *testing.T, node string) *otherTable {
	t.Helper()
	o := w.other(t, node)
	o.at = 3
	o.add("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})
	stage.Check(t, o.conn.Flush())
	return o
}

// packets is what the rule has counted.
func (o *otherTable) packets(t *testing.T) uint64 {
	t.Helper()
	rules, err := o.conn.GetRules(o.table, o.chain)
	stage.Check(t, err)
	return rules[0].Exprs[o.at].(*expr.Counter).Packets
}

func (o *otherTable) delete(t *testing.T) {
	t.Helper()
	o.conn.DelTable(o.table)
	stage.Check(t, o.conn.Flush())
}
