// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package witness hears from the kernel when it has a change of nftables. It is an edge: it listens in a node's
// network namespace, knows no program that writes there, and looks for addresses in the kernel's own messages.
package witness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/process"
)

// Witness listens to the kernel's own notifications about nftables in a node's
// namespace. The kernel sends them after a transaction is in force, so the time
// of their arrival is an upper bound of when packets met the change.
type Witness struct {
	conn  *netlink.Conn
	ended chan struct{}

	mu      sync.Mutex // guards what follows
	waiting map[sight]*Arrival
	changes uint64 // elements and rules that came or went
	lost    error  // the kernel dropped notifications
}

// sight is an address that comes or goes.
type sight struct {
	word uint32
	gone bool
}

// Arrival is told when all of its sights were seen.
type Arrival struct {
	left int
	at   chan time.Time // has room for the one value
}

// At receives the time of the last of them, once.
func (a *Arrival) At() <-chan time.Time { return a.at }

// buffer holds the notifications of some 100,000 elements.
const buffer = 256 << 20

// Listen begins to listen in the network namespace of the descriptor. The caller must Close the witness.
func Listen(fd int) (*Witness, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1),
		NetNS: fd})
	if err != nil {
		return nil, fmt.Errorf("listening to nftables: %w", err)
	}
	if err := conn.SetReadBuffer(buffer); err != nil {
		return nil, errors.Join(fmt.Errorf("making room for notifications: %w", err), conn.Close())
	}
	w := &Witness{conn: conn, ended: make(chan struct{}), waiting: map[sight]*Arrival{}}
	go w.listen()
	return w, nil
}

// Close ends the listening.
func (w *Witness) Close() error {
	err := w.conn.Close()
	<-w.ended
	return err
}

func (w *Witness) listen() {
	defer close(w.ended)
	for {
		messages, err := w.conn.Receive()
		now := time.Now()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.mu.Lock()
			w.lost = err
			w.mu.Unlock()
			continue
		case err != nil:
			return // closed
		}
		w.mu.Lock()
		for _, m := range messages {
			w.look(m, now)
		}
		w.mu.Unlock()
	}
}

// look searches a message for addresses that are waited for. Attributes are
// aligned to four bytes, and so is an address at any place of a key.
func (w *Witness) look(m netlink.Message, now time.Time) {
	s := sight{}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_NEWRULE:
	case unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_DELRULE:
		s.gone = true
	default:
		return
	}
	w.changes++
	for i := 0; i+4 <= len(m.Data); i += 4 {
		s.word = binary.BigEndian.Uint32(m.Data[i:])
		if a := w.waiting[s]; a != nil {
			delete(w.waiting, s)
			if a.left--; a.left == 0 {
				a.at <- now
			}
		}
	}
}

// Expect returns what is told when all addresses have come, or have gone. Of an IPv6 address the last four bytes are
// looked for. They, or an IPv4 address, must not read as the head of an attribute: 10.64.0.0 and above never do.
func (w *Witness) Expect(gone bool, list ...netip.Addr) *Arrival {
	a := &Arrival{left: len(list), at: make(chan time.Time, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ip := range list {
		b := ip.AsSlice()
		w.waiting[sight{binary.BigEndian.Uint32(b[len(b)-4:]), gone}] = a
	}
	return a
}

// Await returns when the kernel showed the last of what is expected, as long as the program lives that writes it.
func (w *Witness) Await(ctx context.Context, seen *Arrival, patience time.Duration,
	program *process.Process) (time.Time, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case at := <-seen.at:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	case <-program.Ended():
		return time.Time{}, fmt.Errorf("waiting for a change: %w", process.Lives(program))
	case <-limit.C:
		return time.Time{}, errors.Join(fmt.Errorf("waiting for a change: the kernel did not show it within %s\n%s",
			patience, program.Tail()), w.Failure())
	}
}

// Changes returns how many elements and rules have come or gone since Listen, as far as the kernel has told.
func (w *Witness) Changes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

// Failure says whether notifications were lost, which makes a wait endless.
func (w *Witness) Failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}
