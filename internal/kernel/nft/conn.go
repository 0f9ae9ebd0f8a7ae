// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// Conn talks to the nftables of one network namespace about one table. It is used
// by one goroutine at a time, together with all that Of returns.
type Conn struct {
	nl     *nftables.Conn
	netns  int
	lister *lister // shared with what Of returns
	id     TableID
	table  *nftables.Table
	portID uint32
	batch  int     // elements of one transaction
	taken  *uint32 // transactions, shared likewise
}

// batchElements bounds the elements, and the rules of new chains, of one
// transaction: the kernel is not to be interrupted in one, and takes up to 40 µs for
// a rule. Larger changes are committed in several, which is safe in the order that
// Diff gives: sets are filled before anything refers to them, and chains are emptied
// after nothing does. Only the replacement of the whole table is never cut.
const batchElements = 10_000

// Stage says in which transaction of a change an operation belongs: what will be
// referred to, the references, and what nothing refers to any more. A packet
// that is under way while a transaction takes effect keeps the old rules but
// meets the new elements, and a chain that is new in the same transaction is
// still empty for it: it would pass.
func (k OpKind) Stage() int {
	switch {
	case k < SwapElements:
		return 0
	case k == SwapElements:
		return 1
	}
	return 2
}

// InStages reports whether a change needs a transaction for each stage: chains
// come or go while packets meet the table. Nobody meets a new one yet.
func InStages(ops []Op) bool {
	return ops[0].Kind > AddTable && slices.ContainsFunc(ops, func(op Op) bool { return op.Kind == AddChain || op.Kind == DeleteChain })
}

// Open connects to the nftables of the network namespace that netns refers to,
// or of the calling thread if netns is 0, for the table of that name.
func Open(netns int, t TableID) (*Conn, error) {
	c := &Conn{netns: netns, batch: batchElements, taken: new(uint32)}
	c.id, c.table = t, t.kernel()
	if err := c.dial(); err != nil {
		return nil, err
	}
	return c, nil
}

// Of returns a connection for another table, over the same socket. It must not be
// used after Renew.
func (c *Conn) Of(t TableID) *Conn {
	other := *c
	other.id, other.table = t, t.kernel()
	return &other
}

// Over returns a connection over one that is open already. It can commit and delete
// only, and belongs to whoever opened the other one.
func Over(nl *nftables.Conn, t TableID) *Conn {
	return &Conn{nl: nl, batch: batchElements, taken: new(uint32), id: t, table: t.kernel()}
}

// LimitBatch sets how many elements one transaction has at most.
func (c *Conn) LimitBatch(elements int) { c.batch = elements }

func (t TableID) kernel() *nftables.Table {
	return &nftables.Table{Name: t.Name, Family: [...]nftables.TableFamily{FamilyINet: nftables.TableFamilyINet,
		FamilyIP: nftables.TableFamilyIPv4, FamilyIP6: nftables.TableFamilyIPv6, FamilyBridge: nftables.TableFamilyBridge}[t.Family]}
}

func (c *Conn) dial() error {
	nl, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(c.netns))
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	port, err := nl.GetPortID()
	if err != nil {
		return errors.Join(fmt.Errorf("asking for the netlink port: %w", err), nl.CloseLasting())
	}
	l, err := openLister(c.netns)
	if err != nil {
		return errors.Join(err, nl.CloseLasting())
	}
	c.nl, c.lister, c.portID = nl, l, port
	return nil
}

// Renew connects anew. After a failure the kernel's answer may still be on its
// way: over the old connection it would be taken for that to the next question,
// and every later question would fail. The netlink port is another one then. On
// an error the old connection stays.
func (c *Conn) Renew() error {
	old := *c
	if err := c.dial(); err != nil {
		return err
	}
	return old.Close()
}

// Close ends the connection.
func (c *Conn) Close() error { return errors.Join(c.nl.CloseLasting(), c.lister.nl.Close()) }

// Transactions returns how many the kernel has taken from Commit and Delete, of
// all tables of ours: by so much they have moved the generation.
func (c *Conn) Transactions() uint32 { return *c.taken }

// PortID tells our changes from those of others in notifications.
func (c *Conn) PortID() uint32 { return c.portID }

// Generation returns the kernel's counter of committed transactions, of all
// programs.
func (c *Conn) Generation() (uint32, error) {
	g, err := c.nl.GetGen()
	if err != nil {
		return 0, fmt.Errorf("reading the nftables generation: %w", err)
	}
	return g.ID, nil
}

// Delete removes the whole table; a missing one is no error.
func (c *Conn) Delete() error {
	c.nl.AddTable(c.table) // so that the delete finds it, with any kernel
	c.nl.DelTable(c.table)
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("deleting table %s: %w", c.id, err)
	}
	*c.taken++
	return nil
}

// Commit is CommitUntil without an end.
func (c *Conn) Commit(ops []Op) error { return c.CommitUntil(context.Background(), ops) }

// CommitUntil sends the operations. On error the kernel may have taken some of the
// batches of a large change: read the table back before the next try.
//
// When ctx ends no further transaction is begun, and that is an error, too.
func (c *Conn) CommitUntil(ctx context.Context, ops []Op) error {
	if len(ops) == 0 {
		return nil
	}
	pending, stage := 0, ops[0].Kind.Stage()
	whole, staged, weight := ops[0].Kind == DeleteTable, InStages(ops), weigher(ops)
	if !whole {
		ops = split(ops, c.batch)
	}
	for _, op := range ops {
		pending += weight(op)
		next := staged && op.Kind.Stage() != stage
		stage = op.Kind.Stage()
		if next || pending > c.batch && weight(op) > 0 && !whole {
			if err := ctx.Err(); err != nil {
				return c.abandon(err)
			}
			if err := c.flush(); err != nil {
				return err
			}
			pending = weight(op)
		}
		if err := c.queue(op); err != nil {
			return fmt.Errorf("encoding %q: %w", op, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return c.abandon(err)
	}
	return c.flush()
}

// split divides operations that add or take away many elements of one set.
func split(ops []Op, most int) (parts []Op) {
	for _, op := range ops {
		if op.Kind != AddElements && op.Kind != DeleteElements || len(op.Entries) <= most {
			parts = append(parts, op)
			continue
		}
		for some := range slices.Chunk(op.Entries, most) {
			parts = append(parts, Op{Kind: op.Kind, Set: op.Set, Entries: some})
		}
	}
	return parts
}

// weigher returns what an operation adds to a transaction. Rules count where they are
// those of new chains, which may stay empty until the next transaction; a chain that
// is emptied and filled again must be so in one.
func weigher(ops []Op) func(Op) int {
	added := map[string]bool{}
	for _, op := range ops {
		switch op.Kind {
		case FlushChain:
			return Op.Elements
		case AddChain:
			if op.Chain.Base != nil && ops[0].Kind > AddTable {
				return Op.Elements // packets meet it at once, and what it calls
			}
			added[op.Chain.Name] = true
		}
	}
	return func(op Op) int {
		if op.Kind == AddRules && added[op.Chain.Name] {
			return len(op.Chain.Rules)
		}
		return op.Elements()
	}
}

// abandon gives up what is queued. The connection has to be renewed.
func (c *Conn) abandon(why error) error {
	return fmt.Errorf("committing to table %s: %w", c.id, why)
}

func (c *Conn) flush() error {
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("committing to table %s: %w", c.id, err)
	}
	*c.taken++
	return nil
}

func (c *Conn) queue(op Op) error {
	switch op.Kind {
	case DeleteTable:
		c.nl.DelTable(c.table)
	case AddTable:
		c.nl.AddTable(c.table)
	case AddCounter:
		c.nl.AddObj(&nftables.NamedObj{Table: c.table, Name: op.Counter, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	case AddSet:
		return c.nl.AddSet(c.set(op.Set), nil)
	case AddElements:
		return inParts(c.nl.SetAddElements, c.set(op.Set), op.Set, op.Entries)
	case DeleteElements:
		return inParts(c.nl.SetDeleteElements, c.set(op.Set), op.Set, op.Entries)
	case SwapElements:
		return errors.Join(
			inParts(c.nl.SetDeleteElements, c.set(op.Set), op.Set, op.Removed),
			inParts(c.nl.SetAddElements, c.set(op.Set), op.Set, op.Entries))
	case ChangeElements:
		return c.changeElements(op)
	case DeleteSet:
		c.nl.DelSet(c.set(op.Set))
	case AddChain:
		c.nl.AddChain(c.chain(op.Chain))
	case FlushChain, RetireChain:
		c.nl.FlushChain(c.chain(op.Chain))
	case DeleteChain:
		c.nl.DelChain(c.chain(op.Chain))
	case AddRules:
		c.addRules(op.Chain)
	}
	return nil
}

// changeElements adds what is taken out first, so that it is there.
func (c *Conn) changeElements(op Op) error {
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

func (c *Conn) addRules(chain *Chain) {
	for _, r := range chain.Rules {
		rule := &nftables.Rule{Table: c.table, Chain: c.chain(chain), Exprs: encodeRule(r)}
		if r.Comment != "" {
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, Clip(r.Comment))
		}
		c.nl.AddRule(rule)
	}
}

func (c *Conn) chain(chain *Chain) *nftables.Chain {
	k := &nftables.Chain{Table: c.table, Name: chain.Name}
	if b := chain.Base; b != nil {
		accept := nftables.ChainPolicyAccept
		k.Type, k.Policy = nftables.ChainType(b.Type), &accept
		k.Hooknum, k.Priority = hooks()[b.Hook], nftables.ChainPriorityRef(nftables.ChainPriority(b.Priority))
	}
	return k
}

func hooks() map[string]*nftables.ChainHook {
	return map[string]*nftables.ChainHook{
		"prerouting":  nftables.ChainHookPrerouting,
		"input":       nftables.ChainHookInput,
		"forward":     nftables.ChainHookForward,
		"postrouting": nftables.ChainHookPostrouting,
	}
}

func (c *Conn) set(s *Set) *nftables.Set {
	k := &nftables.Set{
		Table: c.table, Name: s.Name, KeyType: s.Key.datatype(),
		Interval: s.Interval, IsMap: s.Map, Comment: Clip(s.Comment), KeyByteOrder: binaryutil.BigEndian,
	}
	if s.Key >= Interface && s.Key <= InterfaceAddr6 {
		k.KeyByteOrder = binaryutil.NativeEndian
	}
	if s.Map {
		k.DataType = nftables.TypeVerdict
	}
	if s.Timeout > 0 {
		k.HasTimeout, k.Dynamic, k.Timeout = true, true, s.Timeout
	}
	return k
}

// encodedAtOnce is how many entries are encoded at once, about one message full. On the way an element takes some
// 500 bytes, in its message 20: a large set must not be on the way as a whole.
const encodedAtOnce = 3_200

// inParts encodes the entries for put, part by part, into the same transaction.
func inParts(put func(*nftables.Set, []nftables.SetElement) error, k *nftables.Set, s *Set, list []Entry) error {
	for some := range slices.Chunk(list, encodedAtOnce) {
		if err := put(k, elements(s, some)); err != nil {
			return err
		}
	}
	return nil
}

func elements(s *Set, list []Entry) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(list))
	for _, e := range list {
		if s.Interval {
			out = append(out, s.Key.interval(e.Key.Range())...)
			continue
		}
		k := nftables.SetElement{Key: s.Key.bytes(e.Key), Comment: Clip(e.Comment)}
		if kind, ok := e.Verdict.kernel(); ok {
			k.VerdictData = &expr.Verdict{Kind: kind, Chain: e.Verdict.Chain}
		}
		out = append(out, k)
	}
	return out
}

// interval writes a range as the kernel keeps it: the first member, and what
// follows the last one unless the range reaches to the end.
func (k KeyType) interval(r inet.Range) []nftables.SetElement {
	end, ok := k.next(r.Last)
	first := nftables.SetElement{Key: k.bytes(Key{Element: r.First}), IntervalOpen: !ok}
	if !ok {
		return []nftables.SetElement{first}
	}
	return []nftables.SetElement{first, {Key: k.bytes(Key{Element: end}), IntervalEnd: true}}
}

// IsMissing reports whether an error says that the kernel knows no such object.
func IsMissing(err error) bool { return errors.Is(err, unix.ENOENT) }
