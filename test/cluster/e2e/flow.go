// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/test/cluster"
)

const (
	flowPort = 7000
	flowRate = 1000 // datagrams a second
)

// flow sends datagrams from one pod to another, every second one the first of a
// new connection, the others all of one connection.
type flow struct {
	from, to *netns.NS
	dst      netip.AddrPort
	steady   *net.UDPConn
	sink     *net.UDPConn // nil: nobody listens
	before   uint64       // datagrams that the destination had got
	sent     atomic.Uint64
	arrived  atomic.Uint64
	running  sync.WaitGroup
	stopping context.CancelFunc
	err      error // why the sender ended; to be read after running
}

// newFlow starts to send. If answered, somebody listens at the other end and
// counts; otherwise the kernel's own count of datagrams tells what came.
func newFlow(ctx context.Context, from, to *cluster.Pod, listen bool) (f *flow, err error) {
	f = &flow{dst: netip.AddrPortFrom(to.IPs[0], flowPort)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.from, err = from.Netns(ctx); err != nil {
		return nil, err
	}
	if f.to, err = to.Netns(ctx); err != nil {
		return nil, err
	}
	if f.before, err = datagrams(f.to); err != nil {
		return nil, err
	}
	if f.steady, err = f.dial(); err != nil {
		return nil, err
	}
	if listen {
		if err := f.listen(); err != nil {
			return nil, err
		}
	}
	sending, cancel := context.WithCancel(ctx)
	f.stopping = cancel
	f.running.Go(func() { f.err = f.send(sending) })
	return f, nil
}

func (f *flow) listen() error {
	err := f.to.Do(func() (err error) {
		f.sink, err = net.ListenUDP("udp", &net.UDPAddr{Port: flowPort})
		return err
	})
	if err != nil {
		return fmt.Errorf("listening in a pod: %w", err)
	}
	if err := f.sink.SetReadBuffer(8 << 20); err != nil { // a busy machine reads late
		return err
	}
	go func() {
		b := make([]byte, 64)
		for {
			if _, _, err := f.sink.ReadFromUDPAddrPort(b); err != nil {
				return // it was closed
			}
			f.arrived.Add(1)
		}
	}()
	return nil
}

func (f *flow) dial() (c *net.UDPConn, err error) {
	err = f.from.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.dst))
		return err
	})
	return c, err
}

// send keeps the rate in the mean: what was not sent in time is made up for.
func (f *flow) send(ctx context.Context) error {
	return f.from.Do(func() error {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		began := time.Now()
		for n := uint64(0); ; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			due := uint64(time.Since(began).Seconds() * flowRate)
			for range min(due-n, 20) { // more at once would overflow a queue
				if err := f.one(n); err != nil {
					return err
				}
				n++
			}
		}
	})
}

// one runs on a thread within the source.
func (f *flow) one(n uint64) error {
	c := f.steady
	if n%2 == 1 {
		var err error
		if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.dst)); err != nil {
			return err
		}
		defer func() { _ = c.Close() }() // it was sent
	}
	_, err := c.Write(binary.BigEndian.AppendUint64(nil, n))
	// Nobody listens where nothing may come, and a filter may say that it is shut.
	if err == nil || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EPERM) ||
		errors.Is(err, unix.EHOSTUNREACH) {
		f.sent.Add(1)
		return nil
	}
	return err
}

// end stops sending and returns how many datagrams were sent, and how many came.
func (f *flow) end() (sent, arrived uint64, err error) {
	f.stopping()
	f.running.Wait()
	time.Sleep(300 * time.Millisecond) // what is under way
	arrived = f.arrived.Load()
	if f.sink == nil {
		after, read := datagrams(f.to)
		arrived, err = after-f.before, read
	}
	return f.sent.Load(), arrived, errors.Join(f.err, err, f.close())
}

func (f *flow) close() (err error) {
	for _, c := range []*net.UDPConn{f.steady, f.sink} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	for _, ns := range []*netns.NS{f.from, f.to} {
		if ns != nil {
			err = errors.Join(err, ns.Close())
		}
	}
	return err
}

// counts are UDP datagrams that came into a namespace since it was made.
type counts struct {
	heard   uint64 // somebody listened at their port
	unheard uint64
}

// datagrams returns how many UDP datagrams have come into a namespace since it
// was made, whether somebody listened or not.
func datagrams(ns *netns.NS) (uint64, error) {
	c, err := received(ns)
	return c.heard + c.unheard, err
}

func received(ns *netns.NS) (sum counts, err error) {
	err = ns.Do(func() error {
		for _, table := range []string{"/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"} {
			text, err := os.ReadFile(table)
			if err != nil {
				return err
			}
			c := countDatagrams(string(text))
			sum.heard, sum.unheard = sum.heard+c.heard, sum.unheard+c.unheard
		}
		return nil
	})
	return sum, err
}

// countDatagrams reads one of the kernel's tables: of IPv4 a line of names and one
// of values, of IPv6 a line for each.
func countDatagrams(table string) (c counts) {
	var names []string
	add := func(name, value string) {
		v, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil:
		case name == "InDatagrams" || name == "Udp6InDatagrams":
			c.heard += v
		case name == "NoPorts" || name == "Udp6NoPorts":
			c.unheard += v
		}
	}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "Udp:" && names == nil:
			names = f
		case len(f) > 1 && f[0] == "Udp:":
			for i := 1; i < min(len(f), len(names)); i++ {
				add(names[i], f[i])
			}
		case len(f) == 2:
			add(f[0], f[1])
		}
	}
	return c
}

// flows are the two that run while something happens to podwall: one that must
// never pass and one that must always pass.
type flows struct{ never, always *flow }

// judge ends both, counts, and says what is wrong. What happened meanwhile is the
// name of the series, or empty where a scenario has only one.
func (fs *flows) judge(t *trial, during string) error {
	neverSent, came, err := fs.never.end()
	alwaysSent, passed, err2 := fs.always.end()
	series := Series{During: during, NeverSent: neverSent, Passed: came, AlwaysSent: alwaysSent,
		Lost: int64(alwaysSent) - int64(passed)}
	t.result.Series = append(t.result.Series, series)
	t.say("%s: %+v", t.result.Name, series)
	if during != "" {
		during += ": "
	}
	if came > 0 {
		err = errors.Join(err, fmt.Errorf("%s%d of %d datagrams passed that no rule allows", during, came, neverSent))
	}
	if passed != alwaysSent {
		err = errors.Join(err, fmt.Errorf("%s%d of %d datagrams were lost that a rule allows", during,
			alwaysSent-passed, alwaysSent))
	}
	if neverSent == 0 || alwaysSent == 0 {
		err = errors.Join(err, fmt.Errorf("%sa flow sent nothing", during))
	}
	return errors.Join(err, err2)
}
