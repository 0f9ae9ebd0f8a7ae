// SPDX-License-Identifier: Apache-2.0

//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPort = 20000
	lastPort  = 59999
	// burst packets are sent without a pause. The kernel drops what does not
	// fit: the input queue of a CPU holds 1000 packets, and a socket buffer
	// that may not be enlarged somewhat more than 200.
	burst = 64
)

// Send sends the probes in order. It returns at the first that cannot be sent;
// a kernel that has no route, or a local rule that drops, is no error: such a
// probe simply does not arrive.
func (p *Prober) Send(batch []Probe) error {
	for i, probe := range batch {
		if i > 0 && i%burst == 0 {
			time.Sleep(time.Millisecond)
		}
		fd, err := p.prepare(&probe)
		if err != nil {
			return err
		}
		if err := sendIP(fd, probe.Dst, probe.Packet().Bytes()); err != nil && !lostOnTheWay(err) {
			return fmt.Errorf("sending probe %d from %s to %s: %w", probe.ID, probe.From, probe.Dst, err)
		}
	}
	return nil
}

// prepare fills in what the caller left open and notes the probe.
func (p *Prober) prepare(probe *Probe) (fd int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ep := p.endpoints[probe.From]
	if ep == nil {
		return -1, fmt.Errorf("sending probe %d: no endpoint %q", probe.ID, probe.From)
	}
	if _, used := p.sent[probe.ID]; used || probe.ID == 0 {
		return -1, fmt.Errorf("sending probe %d from %s: the number was used before", probe.ID, probe.From)
	}
	if !probe.Src.IsValid() {
		probe.Src = ep.address(probe.Dst)
	}
	if !probe.Src.IsValid() || probe.Src.Is4() != probe.Dst.Is4() {
		return -1, fmt.Errorf("sending probe %d from %s to %s: no source address of that family", probe.ID,
			probe.From, probe.Dst)
	}
	if probe.SrcPort == 0 {
		probe.SrcPort = p.nextPort()
	}
	p.sent[probe.ID] = *probe
	p.lastID = max(p.lastID, probe.ID)
	if probe.Dst.Is4() {
		return ep.send4, nil
	}
	return ep.send6, nil
}

func (ep *endpoint) address(dst netip.Addr) netip.Addr {
	for _, a := range ep.Addrs {
		if a.Is4() == dst.Is4() && a.IsLinkLocalUnicast() == dst.IsLinkLocalUnicast() {
			return a
		}
	}
	return netip.Addr{}
}

func (p *Prober) nextPort() uint16 {
	p.lastPort++
	if p.lastPort > lastPort {
		p.lastPort = firstPort
	}
	return p.lastPort
}

// lostOnTheWay reports the errors by which a kernel says that a packet went
// nowhere: no route, or dropped by a rule at its own output or postrouting.
func lostOnTheWay(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) ||
		errors.Is(err, unix.EACCES)
}

func sendIP(fd int, dst netip.Addr, b []byte) error {
	if dst.Is4() {
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: dst.As4()})
	}
	to := &unix.SockaddrInet6{Addr: dst.WithZone("").As16()}
	if zone := dst.Zone(); zone != "" {
		// Link-local: the caller gives the index of the link as the zone.
		if _, err := fmt.Sscanf(zone, "%d", &to.ZoneId); err != nil {
			return fmt.Errorf("reading zone %q: %w", zone, err)
		}
	}
	return unix.Sendto(fd, b, 0, to)
}

// SendPacket sends a whole IP packet, as built by packet.Packet.Bytes, through
// the routes of an endpoint: crafted flags, spoofed sources.
func (p *Prober) SendPacket(from string, dst netip.Addr, b []byte) error {
	p.mu.Lock()
	ep := p.endpoints[from]
	p.mu.Unlock()
	if ep == nil {
		return fmt.Errorf("sending a packet: no endpoint %q", from)
	}
	fd := ep.send6
	if dst.Is4() {
		fd = ep.send4
	}
	if err := sendIP(fd, dst, b); err != nil {
		return fmt.Errorf("sending a packet from %s: %w", from, err)
	}
	return nil
}

// SendFrame puts a whole Ethernet frame on the link of an endpoint, past its
// routes, neighbours and rules.
func (p *Prober) SendFrame(from string, frame []byte) error {
	p.mu.Lock()
	ep := p.endpoints[from]
	p.mu.Unlock()
	if ep == nil || ep.device == nil {
		return fmt.Errorf("sending a frame: no endpoint %q with a link", from)
	}
	addr := &unix.SockaddrLinklayer{Ifindex: ep.device.Index, Halen: 6}
	if len(frame) >= 14 {
		copy(addr.Addr[:], frame[:6])
	}
	if err := unix.Sendto(ep.frames, frame, 0, addr); err != nil {
		return fmt.Errorf("sending a frame from %s: %w", from, err)
	}
	return nil
}

// HardwareAddr returns the address of an endpoint's link, nil without one.
func (p *Prober) HardwareAddr(name string) net.HardwareAddr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ep := p.endpoints[name]; ep != nil && ep.device != nil {
		return ep.device.HardwareAddr
	}
	return nil
}
