// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/wake"
)

// Host is a direct route to a single address.
type Host struct {
	Addr netip.Addr
	Link int // the interface's index
}

// quiet is the minimum time between two wake-ups: pods start in bursts, each with several changes.
const quiet = 50 * time.Millisecond

// mostRest is the maximum pause before a broken subscription is renewed. Reading all routes may take long,
// so the pause is rest times that duration.
const (
	rest     = 10
	mostRest = 10 * time.Second
)

// Watch sets the signal whenever links, the node's addresses, or routes that may matter for a pod changed,
// until ctx ends. A subscription that breaks because notifications arrive faster than they are read counts
// as a change and is renewed. appeared is called without delay for each new direct route to a single
// address, except routes over interfaces that never lead to pods, and again after each subscription, so
// that none is missed. appeared must not block.
func (l *Links) Watch(ctx context.Context, signal wake.Signal, appeared func(Host)) error {
	for ctx.Err() == nil {
		begun, err := l.watch(ctx, signal, appeared)
		if err != nil {
			return err
		}
		l.renewed(signal)
		select {
		case <-ctx.Done():
		case <-time.After(min(max(quiet, rest*begun), mostRest)):
		}
	}
	return nil
}

// watch returns nil when the subscription breaks, or an error if it cannot be established, and the duration
// of its start.
func (l *Links) watch(ctx context.Context, signal wake.Signal, appeared func(Host)) (begun time.Duration, err error) {
	start := time.Now()
	conn, err := l.subscribe()
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() {
		l.gateways.end()
		_ = conn.Close() // it only reads
	}()
	l.renewed(signal) // earlier changes were not notified
	err = l.gateways.begin(ctx, conn, func(r *route) {
		if h, ok := r.host(); ok && r.table == unix.RT_TABLE_MAIN {
			appeared(h)
		}
	})
	if err != nil {
		return 0, unlessEnded(ctx, err)
	}
	begun = time.Since(start)
	l.changed(signal)
	return begun, l.listen(ctx, conn, signal, appeared)
}

// unlessEnded returns the error, or nil if the context ended: then the error does not matter.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listen processes notifications until ctx ends or one is lost.
func (l *Links) listen(ctx context.Context, conn *netlink.Conn, signal wake.Signal, appeared func(Host)) error {
	listing := wake.New()
	due := newWaker(listing.Set)
	defer due.stop()
	ended, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { l.ahead.run(ended, listing, func() { l.changed(signal) }) })
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			return nil
		case err != nil:
			return fmt.Errorf("watching links and routes: %w", err)
		}
		matters := false
		for i := range messages {
			matters = l.hear(&messages[i], appeared) || matters
		}
		if matters {
			due.wake()
		}
	}
}

// subscribe joins the multicast groups, with the filter set.
func (l *Links) subscribe() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("watching links and routes: %w", err)
	}
	_ = conn.SetReadBuffer(1 << 20) // a smaller buffer works too
	l.gateways.mu.Lock()
	now := l.gateways.interest
	l.gateways.mu.Unlock()
	if now != nil {
		err = setFilter(conn, now)
	}
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE} {
		if err == nil {
			err = conn.JoinGroup(group)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watching links and routes: %w", err), conn.Close())
	}
	return conn, nil
}

func setFilter(conn *netlink.Conn, i *interest) error {
	raw, err := bpf.Assemble(i.filter())
	if err == nil {
		err = conn.SetBPF(raw)
	}
	if err != nil {
		return fmt.Errorf("filtering notifications of routes: %w", err)
	}
	return nil
}

// hear processes a notification, and reports whether it matters.
func (l *Links) hear(m *netlink.Message, appeared func(Host)) bool {
	g := &l.gateways
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard++
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := parseRoute(m.Data)
		if !ok || r.cached(m.Data) {
			return false
		}
		gone := m.Header.Type == unix.RTM_DELROUTE
		if h, ok := r.host(); ok && !gone {
			appeared(h)
		}
		changed := g.note(&r, gone, m.Header.Flags&netlink.Replace != 0)
		return changed || g.interest == nil || g.interest.wants(r.dst)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		l.own.forget()
		a, ok := addressOf(m.Data)
		node := l.node.Load()
		return ok && node != nil && slices.Contains(*node, a)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) >= unix.SizeofIfInfomsg {
			g.shaken(int(word(m.Data[4:])))
		}
	}
	return true
}

// renewed is called at the start and at the end of a subscription: changes may have been missed.
func (l *Links) renewed(signal wake.Signal) {
	l.own.forget()
	l.ahead.forget()
	l.changed(signal)
}

func (l *Links) changed(signal wake.Signal) {
	l.gateways.mu.Lock()
	l.gateways.wakes++
	l.gateways.mu.Unlock()
	l.stale.Store(true)
	signal.Set()
}
