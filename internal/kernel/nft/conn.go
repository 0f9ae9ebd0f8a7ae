// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// Conn reads and changes one table in the nftables of one network namespace. One goroutine at a time uses
// it, together with all that Of returns.
type Conn struct {
	nl     *nftables.Conn
	netns  int
	lister *lister // shared with what Of returns
	id     TableID
	table  *nftables.Table
	ports  Ports
	batch  int    // elements of one transaction
	taken  *Tally // transactions, shared with what Of returns
}

// batchElements bounds the elements of one transaction, and the rules of its new chains: the kernel cannot
// be interrupted during a transaction and takes up to 40 µs per rule. Larger changes are committed in
// several transactions, which is safe in the order of Diff: sets are filled before they are referenced, and
// chains are emptied after the last reference is deleted. Only a table that replaces another as a whole is
// never split.
const batchElements = 10_000

// Stage returns the transaction of a change that an operation belongs to: first the objects that will be
// referenced, then the references, then the objects that are no longer referenced. A packet in flight while
// a transaction takes effect keeps the old rules but sees the new elements. A chain that is new in the same
// transaction is still empty for it, so it would pass.
func (k OpKind) Stage() int {
	switch {
	case k < LeadElements:
		return 0
	case k <= TrailElements:
		return 1
	}
	return 2
}

// InStages reports whether a change needs a transaction for each stage, because chains are added or deleted
// while packets traverse the table. No packet traverses a new table yet.
func InStages(ops []Op) bool {
	return ops[0].Kind > AddTable &&
		slices.ContainsFunc(ops, func(op Op) bool { return op.Kind == AddChain || op.Kind == DeleteChain })
}

// Open connects to the nftables of the network namespace that netns refers to, or of the calling thread if
// netns is 0, for the table with that name.
func Open(netns int, t TableID) (*Conn, error) {
	c := &Conn{netns: netns, batch: batchElements, taken: new(Tally)}
	c.id, c.table = t, t.kernel()
	if err := c.dial(); err != nil {
		return nil, err
	}
	return c, nil
}

// Of returns a connection for another table over the same socket. It must not be used after Renew.
func (c *Conn) Of(t TableID) *Conn {
	other := *c
	other.id, other.table = t, t.kernel()
	return &other
}

// Over returns a connection over an open one. It can only commit and delete, and the owner of nl closes it.
func Over(nl *nftables.Conn, t TableID) *Conn {
	return &Conn{nl: nl, batch: batchElements, taken: new(Tally), id: t, table: t.kernel()}
}

// LimitBatch sets the maximum number of elements per transaction.
func (c *Conn) LimitBatch(elements int) { c.batch = elements }

func (t TableID) kernel() *nftables.Table {
	return &nftables.Table{Name: t.Name, Family: [...]nftables.TableFamily{FamilyINet: nftables.TableFamilyINet,
		FamilyIP: nftables.TableFamilyIPv4, FamilyIP6: nftables.TableFamilyIPv6,
		FamilyBridge: nftables.TableFamilyBridge}[t.Family]}
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
	c.nl, c.lister, c.ports = nl, l, Ports{port, l.portID}
	return nil
}

// Renew reconnects. After a failure the kernel's answer may still be pending: on the old connection it
// would be taken for the answer to the next request, and every later request would fail. The netlink port
// changes. On an error the old connection stays.
func (c *Conn) Renew() error {
	old := *c
	if err := c.dial(); err != nil {
		return err
	}
	return old.Close()
}

// Close ends the connection.
func (c *Conn) Close() error { return errors.Join(c.nl.CloseLasting(), c.lister.nl.Close()) }

// Transactions returns how many transactions of Commit and Delete the kernel has accepted, for all our
// tables: they have raised the generation by that number.
func (c *Conn) Transactions() uint32 { return c.taken.n.Load() }

// Tally is how many transactions of some connections the kernel has accepted. Several goroutines may use it.
type Tally struct{ n atomic.Uint32 }

// CountIn has the connection count its transactions together with others. It is called before the first one.
func (c *Conn) CountIn(n *Tally) { c.taken = n }

// Mark is a state of the kernel's nftables: its generation, and how many transactions that count together it
// had accepted.
type Mark struct{ generation, taken uint32 }

// Mark returns the present state.
func (c *Conn) Mark() (Mark, error) {
	taken := c.Transactions() // first: what is committed meanwhile counts as others'
	g, err := c.Generation()
	return Mark{g, taken}, err
}

// OthersSince reports whether transactions were committed since a mark that are not counted together with
// ours, and returns the present state. One of ours that is being committed at this moment may count as
// others'.
func (c *Conn) OthersSince(m Mark) (others bool, now Mark, err error) {
	if now, err = c.Mark(); err != nil {
		return true, now, err
	}
	ours := c.Transactions() - m.taken // those that the mark counts, and those that came meanwhile
	grown := now.generation - m.generation
	if others = grown < now.taken-m.taken || grown > ours; !others {
		now.taken = m.taken + grown // all are ours
	}
	return others, now, nil
}

// Ports are the netlink ports of a connection: changes that come from them are its own.
type Ports [2]uint32

// Has reports whether a change came from one of the ports.
func (p Ports) Has(port uint32) bool { return port != 0 && slices.Contains(p[:], port) }

// Ports distinguish our changes from those of others in notifications. Changes that add sets with a description
// come from another port than the rest.
func (c *Conn) Ports() Ports { return c.ports }

// Generation returns the kernel's counter of committed transactions of all programs.
func (c *Conn) Generation() (uint32, error) {
	g, err := c.nl.GetGen()
	if err != nil {
		return 0, fmt.Errorf("reading the nftables generation: %w", err)
	}
	return g.ID, nil
}

// Delete removes the whole table, and a copy that is left of its replacement; a missing table is no error.
func (c *Conn) Delete() error {
	c.drop(c.id)
	c.drop(c.id.Copy())
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("deleting table %s: %w", c.id, err)
	}
	c.taken.n.Add(1)
	return nil
}

// Commit is CommitUntil without a deadline.
func (c *Conn) Commit(ops []Op) error { return c.CommitUntil(context.Background(), ops) }

// CommitUntil sends the operations. On error the kernel may have accepted some batches of a large change:
// read the table back before the next try.
//
// After ctx ends no further transaction is begun, which is an error too.
func (c *Conn) CommitUntil(ctx context.Context, ops []Op) error {
	if len(ops) == 0 {
		return nil
	}
	if ops[0].Kind == DeleteTable {
		return c.replace(ctx, ops)
	}
	return c.send(ctx, ops, false)
}

// send sends the operations; if whole, in one transaction.
func (c *Conn) send(ctx context.Context, ops []Op, whole bool) error {
	pending, stage := 0, ops[0].Kind.Stage()
	staged, weight := InStages(ops), weigher(ops)
	if !whole {
		ops = split(ops, c.batch)
	}
	plain := c
	c, err := plain.describing(ops)
	if err != nil {
		return err
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
			pending, c = weight(op), plain // sets come before all elements, so they are there now
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

// split divides operations that add or delete many elements of one set.
func split(ops []Op, most int) (parts []Op) {
	for _, op := range ops {
		if op.Kind == ReplaceElements && len(op.Entries) > most {
			for i := 0; i < len(op.Entries); i += most {
				part, end := op, min(i+most, len(op.Entries))
				part.Entries, part.Removed = op.Entries[i:end], op.Removed[i:end]
				parts = append(parts, part)
			}
			continue
		}
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

// weigher returns the cost of an operation for a transaction. Rules count if they belong to new chains,
// which may stay empty until the next transaction; a chain that is emptied and filled again must not be
// split.
func weigher(ops []Op) func(Op) int {
	added := map[string]bool{}
	for _, op := range ops {
		switch op.Kind {
		case FlushChain:
			return Op.Elements
		case AddChain:
			if op.Chain.Base != nil && ops[0].Kind > AddTable {
				return Op.Elements // packets traverse it at once, with the chains that it calls
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

// abandon drops the queued messages. The connection has to be renewed.
func (c *Conn) abandon(why error) error {
	return fmt.Errorf("committing to table %s: %w", c.id, why)
}

func (c *Conn) flush() error {
	if err := c.nl.Flush(); err != nil {
		return fmt.Errorf("committing to table %s: %w", c.id, err)
	}
	c.taken.n.Add(1)
	return nil
}

func (c *Conn) queue(op Op) error {
	switch op.Kind {
	case DeleteTable:
		c.nl.DelTable(c.table)
	case AddTable:
		c.nl.AddTable(c.table)
	case DropCopy:
		c.drop(c.id.Copy())
	case AddCounter:
		c.nl.AddObj(&nftables.NamedObj{Table: c.table, Name: op.Counter, Type: nftables.ObjTypeCounter,
			Obj: &expr.Counter{}})
	case AddSet:
		return c.nl.AddSet(c.set(op.Set), nil)
	case AddElements:
		return inParts(c.nl.SetAddElements, c.set(op.Set), op.Set, op.Entries)
	case TrailElements, DeleteElements:
		return inParts(c.nl.SetDeleteElements, c.set(op.Set), op.Set, op.Entries)
	case ReplaceElements, LeadElements, SwapElements:
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

// changeElements adds the removed elements first, so that they exist.
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
		"output":      nftables.ChainHookOutput,
		"postrouting": nftables.ChainHookPostrouting,
	}
}

func (c *Conn) set(s *Set) *nftables.Set {
	k := &nftables.Set{
		Table: c.table, Name: s.Name, KeyType: s.Key.datatype(),
		Interval: s.Interval, IsMap: s.Map || s.Data != 0, Comment: Clip(s.Comment), KeyByteOrder: binaryutil.BigEndian,
	}
	if s.typeof() != "" && c.lister != nil {
		k.Comment, k.KeyByteOrder = "", nil // see describing
	}
	if s.Key >= Interface && s.Key <= InterfaceAddr6 {
		k.KeyByteOrder = binaryutil.NativeEndian
	}
	if s.Map {
		k.DataType = nftables.TypeVerdict
	}
	if s.Data != 0 {
		k.DataType = s.Data.datatype()
	}
	if s.Dynamic {
		k.HasTimeout, k.Dynamic, k.Size = true, true, s.Size
	}
	if s.Timeout > 0 {
		k.HasTimeout, k.Dynamic, k.Timeout, k.Size = true, true, s.Timeout, s.Size
	}
	return k
}

// encodedAtOnce is how many entries are encoded at once, about one full message. An element takes some 500
// bytes while it is encoded and 20 in its message: a large set must not be encoded as a whole.
const encodedAtOnce = 3_200

// inParts encodes the entries for put in parts, within the same transaction.
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
		if s.Data != 0 {
			k.Val = s.Data.bytes(Key{Element: inet.Element{Addr: e.To.Addr(), Port: e.To.Port()}})
		}
		out = append(out, k)
	}
	return out
}

// interval writes a range as the kernel stores it: the first member, and the one after the last member
// unless the range reaches to the end.
func (k KeyType) interval(r inet.Range) []nftables.SetElement {
	end, ok := k.next(r.Last)
	first := nftables.SetElement{Key: k.bytes(Key{Element: r.First}), IntervalOpen: !ok}
	if !ok {
		return []nftables.SetElement{first}
	}
	return []nftables.SetElement{first, {Key: k.bytes(Key{Element: end}), IntervalEnd: true}}
}

// IsMissing reports whether an error means that the kernel has no such object.
func IsMissing(err error) bool { return errors.Is(err, unix.ENOENT) }
