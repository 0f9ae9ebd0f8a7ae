// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/packet"
)

// lane is a closed path.
type lane struct {
	src, dst netip.Addr
	fd       int // raw socket in the source
}

// traffic sends each of these about a thousand times a second: a number over UDP and one over TCP from the
// peer to the victim, which must arrive, and a TCP SYN and a datagram, each the first of a new connection,
// on the closed lanes in turn, of which none may arrive.
type traffic struct {
	w        *world
	steadies []*steady
	taps     []*tap
	closed   []lane
	lanes    atomic.Pointer[[]lane] // those in use
	rate     int
	sent     atomic.Uint64 // packets that must not arrive
	before   drops         // the counters at the start
	stopping context.CancelFunc
	running  sync.WaitGroup
	err      error // why the sender ended; to be read after running
}

// traffic starts when the policies are enforced, and is judged by finish.
func (w *world) traffic() *traffic {
	w.t.Helper()
	tr := &traffic{w: w, rate: 1000}
	to := cast()[0].addrs
	tr.steadies = []*steady{w.newSteady("udp", to[0]), w.newSteady("tcp", to[1])}
	for _, name := range []string{victim, stranger} {
		tr.taps = append(tr.taps, newTap(w.t, name, w.ns(name)))
	}
	for i := range 2 {
		tr.lane(stranger, victim, i)
		tr.lane(far, victim, 1-i)
		tr.lane(jailed, stranger, i)
	}
	tr.usual()
	tr.before = w.drops()
	ctx, cancel := context.WithCancel(context.Background())
	tr.stopping = cancel
	tr.running.Go(func() { tr.err = tr.send(ctx) })
	w.t.Cleanup(tr.halt)
	return tr
}

// lane adds a closed path between pods of the cast, in one family.
func (tr *traffic) lane(from, to string, family int) {
	tr.w.t.Helper()
	for _, a := range cast() {
		if a.name == to {
			tr.closed = append(tr.closed, tr.way(from, a.addrs[family]))
		}
	}
}

func (tr *traffic) way(from string, to netip.Addr) lane {
	t := tr.w.t
	t.Helper()
	l := lane{dst: to, fd: -1}
	for _, a := range tr.w.bed.Pod(key(from)).Addrs {
		if a.Is4() == to.Is4() {
			l.src = a
		}
	}
	domain := unix.AF_INET
	if l.dst.Is6() {
		domain = unix.AF_INET6
	}
	check(t, tr.w.ns(from).Do(func() (err error) {
		l.fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}))
	t.Cleanup(func() { check(t, unix.Close(l.fd)) })
	return l
}

// extra adds another closed path, until usual is called.
func (tr *traffic) extra(from string, to netip.Addr) {
	tr.w.t.Helper()
	list := append(slices.Clone(*tr.lanes.Load()), tr.way(from, to))
	tr.lanes.Store(&list)
}

func (tr *traffic) usual() { tr.lanes.Store(&tr.closed) }

// send keeps the average rate: late packets are sent later.
func (tr *traffic) send(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for turn := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds() * float64(tr.rate))
		for range min(due-turn, 20) { // more at once would overflow a queue
			if err := tr.turn(turn); err != nil {
				return err
			}
			turn++
		}
	}
}

func (tr *traffic) turn(n int) error {
	for _, s := range tr.steadies {
		s.turn()
	}
	lanes := *tr.lanes.Load()
	return errors.Join(
		lanes[n%len(lanes)].send(n, packet.Packet{Proto: packet.TCP, Flags: packet.SYN, Window: markWindow, Seq: uint32(n)},
			&tr.sent),
		lanes[(n+2)%len(lanes)].send(n, packet.Packet{Proto: packet.UDP,
			Payload: binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, markWord), uint32(n))}, &tr.sent))
}

// send sends a packet with ports that the lane has not used before.
func (l lane) send(n int, p packet.Packet, sent *atomic.Uint64) error {
	p.Src, p.Dst = l.src, l.dst
	p.SrcPort, p.DstPort = uint16(20000+n%40000), uint16(10000+n/40000%20000)
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: l.dst.As16()}
	if l.dst.Is4() {
		to = &unix.SockaddrInet4{Addr: l.dst.As4()}
	}
	if err := unix.Sendto(l.fd, p.Bytes(), 0, to); err != nil {
		return fmt.Errorf("sending from %s to %s: %w", l.src, l.dst, err)
	}
	sent.Add(1)
	return nil
}

// arrived returns denied packets that arrived.
func (tr *traffic) arrived() (list []arrival) {
	for _, p := range tr.taps {
		list = append(list, p.arrived()...)
	}
	return list
}

func (tr *traffic) halt() {
	tr.stopping()
	tr.running.Wait()
}

// finish ends the traffic and checks it. exact means that the drop counters were never reset, so that they
// must account for every packet.
func (tr *traffic) finish(exact bool) {
	t := tr.w.t
	t.Helper()
	tr.halt()
	check(t, tr.err)
	sent, wrong := tr.sent.Load(), tr.closedEnd()
	if exact && wrong == 0 {
		await(t, fmt.Sprintf("count of %d dropped packets", sent), func() bool { return tr.w.drops().since(tr.before).sum() >= sent })
	}
	dropped := tr.w.drops().since(tr.before)
	if exact && dropped.sum()+uint64(wrong) != sent {
		t.Errorf("%d packets that must be dropped, %v were, %d arrived", sent, dropped, wrong)
	}
	count := fmt.Sprintf("%d dropped", dropped.sum())
	if !exact {
		count = "tables were replaced, so no count of drops"
	}
	text := tr.steadyEnd()
	t.Logf("must never pass: %d sent, %s, %d arrived (wrong = %d); must always pass: %s", sent, count, wrong, wrong, text)
}

// closedEnd checks the denied packets.
func (tr *traffic) closedEnd() int {
	t := tr.w.t
	t.Helper()
	time.Sleep(20 * time.Millisecond) // for the taps to read pending packets; missing late ones would only hide a leak
	for _, p := range tr.taps {
		lost, err := p.lost()
		check(t, err)
		if p.close(); lost > 0 {
			t.Errorf("the tap at %s did not see %d packets", p.name, lost)
		}
	}
	wrong := tr.arrived()
	for _, a := range wrong[:min(5, len(wrong))] {
		t.Errorf("arrived, and must not: %s", a.what)
	}
	return len(wrong)
}

func (tr *traffic) steadyEnd() (text string) {
	for i, s := range tr.steadies {
		if i > 0 {
			text += "; "
		}
		text += s.end(tr.w.t)
	}
	return text
}

// pause waits until some packets have been sent.
func (tr *traffic) pause(packets uint64) {
	tr.w.t.Helper()
	upTo := tr.sent.Load() + packets
	await(tr.w.t, "traffic", func() bool { return tr.sent.Load() >= upTo })
}
