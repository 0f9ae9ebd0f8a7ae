// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ipvs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	lib "github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

var (
	// ErrNone says that the kernel has no IPVS.
	ErrNone = errors.New("the kernel has no IPVS (modprobe ip_vs)")
	// ErrScheduler says that the kernel does not have the scheduler of a virtual service.
	ErrScheduler = errors.New("the kernel does not have the scheduler")
)

// Conn changes the virtual services of a network namespace. One goroutine uses it.
type Conn struct{ client lib.Client }

// Open connects to the IPVS of the calling thread's network namespace. The kernel loads the module if it
// finds it; otherwise the error is ErrNone.
func Open() (*Conn, error) {
	client, err := lib.New()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNone
	case err != nil:
		return nil, fmt.Errorf("connecting to IPVS: %w", err)
	}
	return &Conn{client}, nil
}

// Close ends the connection. The virtual services stay.
func (c *Conn) Close() error {
	if client, ok := c.client.(io.Closer); ok {
		return client.Close()
	}
	return nil
}

// services returns all virtual services.
func (c *Conn) services() ([]lib.ServiceExtended, error) {
	found, err := c.client.Services()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // which says that there is none
		return nil, fmt.Errorf("listing the virtual services of IPVS: %w", err)
	}
	return found, nil
}

// Services returns all virtual services without their destinations, whoever made them.
func (c *Conn) Services() (list []Service, err error) {
	found, err := c.services()
	for _, s := range found {
		list = append(list, fromLib(s.Service))
	}
	return list, err
}

// Timeouts returns when connections are forgotten.
func (c *Conn) Timeouts() (Timeouts, error) {
	is, err := c.client.Config()
	if err != nil {
		return Timeouts{}, fmt.Errorf("reading the timeouts of IPVS: %w", err)
	}
	return Timeouts{is.TCPTimeout, is.TCPFinTimeout, is.UDPTimeout}, nil
}

// SetTimeouts sets when connections are forgotten: those of which packets come from now on. Zeros leave what is.
func (c *Conn) SetTimeouts(t Timeouts) error {
	all := lib.Config{TCPTimeout: t.TCP, TCPFinTimeout: t.TCPFin, UDPTimeout: t.UDP}
	if err := c.client.SetConfig(all); err != nil {
		return fmt.Errorf("setting the timeouts of IPVS: %w", err)
	}
	return nil
}

// List returns all virtual services, sorted, whoever made them.
func (c *Conn) List() (list []Listed, err error) {
	found, err := c.services()
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		one := Listed{Service: fromLib(s.Service)}
		if one.Destinations, err = c.destinations(s.Service); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Listed) int { return a.ID.Compare(b.ID) })
	return list, nil
}

// Destinations returns those of a virtual service, sorted. One that is not there has none.
func (c *Conn) Destinations(id ID) ([]Held, error) { return c.destinations(toLib(Service{ID: id})) }

// destinations returns those of a virtual service, sorted. One that was deleted meanwhile has none.
func (c *Conn) destinations(s lib.Service) (list []Held, err error) {
	found, err := c.client.Destinations(s)
	if err != nil && !missing(err) {
		return nil, fmt.Errorf("listing the destinations of a virtual service of IPVS: %w", err)
	}
	for _, d := range found {
		list = append(list, Held{Destination{Backend{d.Address, d.Port}, d.Weight, d.FwdMethod != lib.Masquerade},
			d.ActiveConnections, d.InactiveConnections, d.PersistentConnections})
	}
	slices.SortFunc(list, func(a, b Held) int { return a.Backend.Compare(b.Backend) })
	return list, nil
}

// missing reports whether the kernel says that an object is not there.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// Do carries out one operation. What is deleted and is not there is no error.
func (c *Conn) Do(o Op) error {
	s, d := toLib(o.Service), lib.Destination{Address: o.Destination.Addr, Port: o.Destination.Port,
		Weight: o.Destination.Weight, Family: familyOf(o.Service)}
	var err error
	switch o.Kind {
	case AddService:
		err = scheduled(c.client.CreateService(s))
	case EditService:
		err = scheduled(c.client.UpdateService(s))
	case DeleteService:
		err = gone(c.client.RemoveService(s))
	case AddDestination:
		err = c.client.CreateDestination(s, d)
	case EditDestination:
		err = c.client.UpdateDestination(s, d)
	case DeleteDestination:
		err = gone(c.client.RemoveDestination(s, d))
	}
	if err != nil {
		return fmt.Errorf("IPVS: %s: %w", o, err)
	}
	return nil
}

// scheduled names what ENOENT means to add or edit a virtual service.
func scheduled(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrScheduler
	}
	return err
}

func gone(err error) error {
	if missing(err) {
		return nil
	}
	return err
}

func familyOf(s Service) lib.AddressFamily {
	if inet.FamilyOf(s.Addr) == inet.IPv6 {
		return lib.INET6
	}
	return lib.INET
}

func toLib(s Service) lib.Service {
	return lib.Service{Address: s.Addr, Protocol: lib.Protocol(s.Protocol), Port: s.Port, Family: familyOf(s),
		Scheduler: s.Scheduler, Flags: lib.Flags(s.Flags), Timeout: s.Timeout,
		Netmask: netmask.MaskFrom(s.Addr.BitLen(), s.Addr.BitLen())}
}

func fromLib(s lib.Service) Service {
	out := Service{Mark: s.FWMark, Scheduler: s.Scheduler, Flags: Flags(s.Flags) &^ hashed, Timeout: s.Timeout}
	if out.Flags&Persistent == 0 {
		out.Timeout = 0 // the kernel keeps one that was set before
	}
	if s.FWMark == 0 {
		out.ID = ID{s.Address, inet.Protocol(s.Protocol), s.Port}
	}
	return out
}
