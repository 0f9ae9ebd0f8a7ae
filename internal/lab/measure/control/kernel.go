// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// witness listens to the kernel's own notifications about nftables in a node's
// namespace. The kernel sends them after a transaction is in force, so the time
// of their arrival is an upper bound of when packets met the change. It knows
// nothing of the agent: it looks for addresses in the messages.
type witness struct {
	conn  *netlink.Conn
	ended chan struct{}

	mu      sync.Mutex // guards what follows
	waiting map[sight]*arrival
	lost    error // the kernel dropped notifications
}

// sight is an address that comes or goes.
type sight struct {
	word uint32
	gone bool
}

// arrival is told when all of its sights were seen.
type arrival struct {
	left int
	at   chan time.Time // has room for the one value
}

// buffer holds the notifications of some 100,000 elements.
const buffer = 256 << 20

// watchKernel begins to listen in the namespace of the descriptor.
func watchKernel(fd int) (*witness, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1),
		NetNS: fd})
	if err != nil {
		return nil, fmt.Errorf("listening to nftables: %w", err)
	}
	if err := conn.SetReadBuffer(buffer); err != nil {
		return nil, errors.Join(fmt.Errorf("making room for notifications: %w", err), conn.Close())
	}
	w := &witness{conn: conn, ended: make(chan struct{}), waiting: map[sight]*arrival{}}
	go w.listen()
	return w, nil
}

// Close ends the listening.
func (w *witness) Close() error {
	err := w.conn.Close()
	<-w.ended
	return err
}

func (w *witness) listen() {
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
func (w *witness) look(m netlink.Message, now time.Time) {
	s := sight{}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_NEWRULE:
	case unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_DELRULE:
		s.gone = true
	default:
		return
	}
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

// expect returns what is told when all addresses have come, or have gone.
func (w *witness) expect(gone bool, list ...netip.Addr) *arrival {
	a := &arrival{left: len(list), at: make(chan time.Time, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ip := range list {
		b := ip.As4()
		w.waiting[sight{binary.BigEndian.Uint32(b[:]), gone}] = a
	}
	return a
}

// failure says whether notifications were lost, which makes a wait endless.
func (w *witness) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}
