// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

// cable connects two tap interfaces: a frame that the kernel sends by one is received on the other, as
// between a node and a virtual machine.
type cable struct {
	ends    [2]*os.File
	running sync.WaitGroup
}

// newCable makes a tap in each namespace. They go away with the cable.
func newCable(outside, inside *space, outer, inner string) (*cable, error) {
	c := &cable{}
	var err error
	for i, end := range []struct {
		ns   *netns.NS
		name string
	}{{outside.ns, outer}, {inside.ns, inner}} {
		err = errors.Join(err, end.ns.Do(func() (err error) {
			c.ends[i], err = openTap(end.name)
			return err
		}))
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	c.running.Go(func() { forward(c.ends[0], c.ends[1]) })
	c.running.Go(func() { forward(c.ends[1], c.ends[0]) })
	return c, nil
}

// openTap makes a tap in the thread's namespace.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the driver of taps: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making tap %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// forward copies frames until an end is closed. Like a wire it loses a frame that the other end does not
// take, as one that is not up.
func forward(from, to *os.File) {
	for frame := make([]byte, 65536); ; {
		n, err := from.Read(frame)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = to.Write(frame[:n])
		}
	}
}

func (c *cable) close() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, f := range c.ends {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	c.running.Wait()
	return errors.Join(errs...)
}

// tapped connects a pod by two taps instead of a veth pair.
func (b *Bed) tapped(p *pod) (netlink.Link, error) {
	b.links += 2
	var err error
	if p.cable, err = newCable(p.node.space, p.space, p.HostDevice, device); err != nil {
		return nil, err
	}
	for s, name := range map[*space]string{p.node.space: p.HostDevice, p.space: device} {
		link, err := s.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("finding link %s: %w", name, err)
		}
		mac := hardwareAddr(b.links)
		if name == device {
			mac = hardwareAddr(b.links + 1)
		}
		if err := s.LinkSetHardwareAddr(link, mac); err != nil {
			return nil, fmt.Errorf("setting the hardware address of %s: %w", name, err)
		}
	}
	outer, err := p.node.LinkByName(p.HostDevice)
	if err != nil {
		return nil, fmt.Errorf("finding link %s: %w", p.HostDevice, err)
	}
	return outer, p.node.LinkSetUp(outer)
}
