// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/lab/packet"
)

// Service is one port of a Service: traffic to the front goes to one of the
// backends, chosen at random for each connection.
type Service struct {
	Front    netip.AddrPort
	Proto    packet.Protocol  // not ICMP
	Backends []netip.AddrPort // of the family of Front
}

// ServiceOptions are what kube-proxy's modes differ in.
type ServiceOptions struct {
	// DropInvalid drops what connection tracking calls invalid in the forward
	// hook, as kube-proxy does unless it is told to be liberal.
	DropInvalid bool
	// MasqueradeAll hides the source of all Service traffic behind the node,
	// not only that of a pod that reaches itself.
	MasqueradeAll bool
}

// serviceTableName is the stand-in's table on every node. Agents must leave it
// alone.
const serviceTableName = "lab-services"

type serviceTable struct {
	conn  *nftables.Conn
	table *nftables.Table
}

// SetServices makes the given Services the only ones on every node.
func (b *Bed) SetServices(services []Service) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range services {
		if err := s.check(); err != nil {
			return fmt.Errorf("setting services: %w", err)
		}
	}
	for _, n := range b.sortedNodes() {
		if err := n.setServices(b.services, services, b.cfg.Services); err != nil {
			return fmt.Errorf("setting services on %s: %w", n.Name, err)
		}
	}
	b.services = slices.Clone(services)
	return nil
}

// RouteServices makes processes of the nodes reach the addresses of the given Services, and of no others: what
// translates them is not the lab's.
func (b *Bed) RouteServices(services []Service) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.sortedNodes() {
		if err := n.routeServices(b.services, services); err != nil {
			return fmt.Errorf("routing to services on %s: %w", n.Name, err)
		}
	}
	b.services = slices.Clone(services)
	return nil
}

func (s Service) check() error {
	if s.Proto != packet.TCP && s.Proto != packet.UDP && s.Proto != packet.SCTP {
		return fmt.Errorf("service %s: protocol %s has no ports", s.Front, s.Proto)
	}
	for _, backend := range s.Backends {
		if backend.Addr().Is4() != s.Front.Addr().Is4() {
			return fmt.Errorf("service %s: backend %s is of another family", s.Front, backend)
		}
	}
	return nil
}

func (n *node) setServices(old, services []Service, o ServiceOptions) error {
	if err := n.routeServices(old, services); err != nil {
		return err
	}
	return n.table.write(services, o)
}

// routeServices gives the node's own packets a route before the address is rewritten; a real node has its
// default route for that.
func (n *node) routeServices(old, services []Service) error {
	var errs []error
	for _, s := range old {
		errs = append(errs, n.unroute(n.link, single(s.Front.Addr()), netip.Addr{}))
	}
	for _, s := range services {
		errs = append(errs, n.route(n.link, single(s.Front.Addr()), netip.Addr{}))
	}
	return errors.Join(errs...)
}

// newServiceTable opens the node's one nftables connection. It is opened
// early and kept, since the library cannot use a file descriptor above 1023.
func newServiceTable(s *space) (*serviceTable, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(s.ns.FD()), nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return &serviceTable{conn, &nftables.Table{Family: nftables.TableFamilyINet, Name: serviceTableName}}, nil
}

// write replaces the whole table in one transaction.
func (t *serviceTable) write(services []Service, o ServiceOptions) error {
	c := t.conn
	c.AddTable(t.table) // so that there is one to delete
	c.DelTable(t.table)
	c.AddTable(t.table)
	if len(services) > 0 {
		t.addNAT(services, o)
	}
	if o.DropInvalid {
		accept := nftables.ChainPolicyAccept
		forward := c.AddChain(&nftables.Chain{Table: t.table, Name: "forward", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept})
		t.rule(forward, matchInvalid(), drop())
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing table %s: %w", serviceTableName, err)
	}
	return nil
}

func (t *serviceTable) addNAT(services []Service, o ServiceOptions) {
	front := t.conn.AddChain(&nftables.Chain{Table: t.table, Name: "services"})
	for _, s := range services {
		for i, backend := range s.Backends {
			choice := match(s)
			if left := len(s.Backends) - i; left > 1 {
				choice = append(choice, oneOf(left)...)
			}
			t.rule(front, choice, dnat(backend))
		}
	}
	t.rule(t.nat("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest), nil, jump("services"))
	t.rule(t.nat("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest), nil, jump("services"))
	post := t.nat("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	if o.MasqueradeAll {
		t.rule(post, matchTranslated(), masquerade())
		return
	}
	for _, a := range backendAddrs(services) {
		t.rule(post, append(matchTranslated(), matchItself(a)...), masquerade())
	}
}

func (t *serviceTable) nat(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook,
		Priority: priority})
}

func backendAddrs(services []Service) []netip.Addr {
	var list []netip.Addr
	for _, s := range services {
		for _, backend := range s.Backends {
			list = append(list, backend.Addr())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
