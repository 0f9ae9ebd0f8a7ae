// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// LimitPerAddress matches packets of each address, or of each pair of addresses, up to a rate. The kernel
// fills the set, which must have a timeout, with one limit for each: one cannot use up the packets of
// another. What finds no room in the set does not match.
type LimitPerAddress struct {
	Field  Field // Source, Destination or SourceDestination
	Family inet.Family
	Set    string
	// Rate is in packets per second; Burst is how many packets may exceed it.
	Rate, Burst uint32
}

// Log gives a copy of the packet to the program that listens to an NFLOG group. Without a listener it does
// nothing.
type Log struct {
	Group  uint16
	Prefix string // at most 63 bytes
	Bytes  uint32 // of the packet, from the network header
}

func (s LimitPerAddress) encode(e *encoder) {
	e.needFamily(s.Family)
	if s.Field == SourceDestination {
		e.address(Destination, s.Family, second(e.address(Source, s.Family, register)))
	} else {
		e.address(s.Field, s.Family, register)
	}
	e.add(&expr.Dynset{SrcRegKey: register, SetName: s.Set, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(s.Rate), Unit: expr.LimitTimeSecond, Burst: s.Burst}}})
}

func (s LimitPerAddress) text() string {
	return fmt.Sprintf("update @%s { %s limit rate %d/second burst %d packets }", s.Set,
		s.Field.text(s.Family, inet.AnyProtocol), s.Rate, s.Burst)
}

func (s Log) encode(e *encoder) {
	e.add(&expr.Log{Group: s.Group, Snaplen: s.Bytes, Data: []byte(s.Prefix),
		Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_PREFIX})
}

func (s Log) text() string {
	return fmt.Sprintf("log prefix %q group %d snaplen %d", s.Prefix, s.Group, s.Bytes)
}
