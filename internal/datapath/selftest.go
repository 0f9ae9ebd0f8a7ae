// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The self-test sends one packet of each family to an address that the table always lists as an isolated
// pod (ruleset.SelfTest), through a veth pair of its own that leads nowhere. The packet traverses the same
// base chain as all other packets: if it is not dropped there, a pod's packet would not be either. That
// happens if connection tracking is off, or if another program's chain accepts the packet for good before
// ours.
const (
	testLink = "podwall-test0"
	testPeer = "podwall-test1"
)

// proof is the result of the self-test.
type proof struct {
	tested bool             // it ran on the current type of chain
	last   time.Time        // the last attempt
	failed []decide.Problem // its findings
}

// untested is the delay before a self-test that could not run is tried again.
const untested = 10 * time.Second

// prove runs the self-test when the type of base chain is new. If nat chains do not drop the packet, it
// switches to filter chains permanently and tests again.
func (d *Datapath) prove(ctx context.Context, p *program.Program, report *Report) error {
	if d.proof.tested || time.Since(d.proof.last) < untested && len(d.proof.failed) > 0 {
		return nil
	}
	passed, err := d.test(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("running the self-test: %w", ctx.Err()) // aborted, without a result
	}
	d.proof.failed = selfTestProblems(passed, err)
	if d.decider.Forced {
		d.proof.failed = append(d.proof.failed, forcedProblem())
	}
	if len(passed) > 0 && !report.Filter {
		d.log.Error("a packet that must be dropped passed the nat chain, using filter chains", "detail", passed[0].Text)
		return d.force(ctx, p, report)
	}
	return nil
}

// force switches to filter chains and tests them.
func (d *Datapath) force(ctx context.Context, p *program.Program, report *Report) error {
	d.decider.Forced, d.proof.tested, d.proof.failed = true, false, []decide.Problem{forcedProblem()}
	d.settings.keep(forcedEntry, "nat chains did not drop the self-test's packet")
	if err := d.enforce(ctx, p, report); err != nil {
		return err
	}
	passed, err := d.test(ctx)
	d.proof.failed = append(d.proof.failed, selfTestProblems(passed, err)...)
	return nil
}

func forcedProblem() decide.Problem {
	return decide.Problem{Subject: "datapath", Blocking: true,
		Text: "nat chains did not drop the self-test's packet; judging in filter chains instead",
		Cure: "look for programs that use nat chains at priority -190 or below, then run once with " +
			"--cleanup-config to have nat chains tried again; or run with --datapath=filter"}
}

// test runs the self-test and notes whether it could run.
func (d *Datapath) test(ctx context.Context) (passed []decide.Problem, err error) {
	d.proof.last = time.Now()
	passed, err = d.selfTest(ctx)
	d.proof.tested = err == nil
	return passed, d.trust(err)
}

// selfTestProblems adds a problem for a test that could not run to the failures.
func selfTestProblems(passed []decide.Problem, err error) []decide.Problem {
	if err == nil {
		return passed
	}
	return append(passed, decide.Problem{Subject: "self-test", Text: "could not be run: " + err.Error(), Blocking: true,
		Cure: cureForSelfTest(err)})
}

// selfTest returns the families in which the packet passed. The error means that it could not be sent.
func (d *Datapath) selfTest(ctx context.Context) (passed []decide.Problem, err error) {
	link, err := makeTestLink()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := removeSelfTest(); err != nil {
			d.log.Warn("removing the self-test's interfaces failed", "err", err)
		}
	}()
	var failed []error
	for _, f := range inet.Families {
		if f == inet.IPv6 {
			on, err := ipv6On(d.options.Sysctls)
			if !on && err == nil {
				d.log.Info("self-test skipped, IPv6 is switched off", "family", "ipv6")
			}
			if failed = append(failed, err); !on {
				continue
			}
		}
		verdict, err := d.mustDrop(ctx, link, ruleset.SelfTest(f))
		if verdict != "" {
			passed = append(passed, decide.Problem{Subject: fmt.Sprintf("self-test ipv%d", f), Text: verdict,
				Blocking: true})
		}
		failed = append(failed, err)
	}
	return passed, errors.Join(failed...)
}

// ipv6On enables IPv6 on the test link, unless the kernel has it disabled for all interfaces. Hosts that
// use IPv6 elsewhere may disable it on new links.
func ipv6On(s sysctl.Dir) (on bool, err error) {
	name := func(link string) string { return "net/ipv6/conf/" + link + "/disable_ipv6" }
	off := func(link string) bool {
		value, err := s.Read(name(link))
		return err != nil || value == "1"
	}
	switch {
	case off("all"):
		return false, nil
	case !off(testLink):
		return true, nil
	}
	if err := s.Write(name(testLink), "0"); err != nil {
		return false, fmt.Errorf("new interfaces have no IPv6: %w", err)
	}
	return true, nil
}

func cureForSelfTest(err error) string {
	if errors.Is(err, unix.EROFS) {
		return cureForSetting("ipv6.conf.default.disable_ipv6=0", err)
	}
	return needsAdmin
}

// mustDrop sends one packet, expects the error of a drop, and expects the drop to be counted; otherwise
// passed describes the outcome.
func (d *Datapath) mustDrop(ctx context.Context, link netlink.Link, to netip.Addr) (passed string, err error) {
	if err := route(link, to); err != nil {
		return "", err
	}
	before, err := d.conn.Counters()
	if err != nil {
		return "", err
	}
	sent := send(ctx, to)
	after, err := d.conn.Counters()
	switch {
	case err != nil:
		return "", err
	case sent == nil:
		return fmt.Sprintf("a packet to %s passed, though it must be dropped", to), nil
	case !errors.Is(sent, unix.EPERM):
		return "", fmt.Errorf("sending the test packet to %s: %w", to, sent)
	case after[ruleset.CounterSelfTest] == before[ruleset.CounterSelfTest]:
		// It proves nothing about our chain, which comes after the chain that dropped the packet.
		return "", fmt.Errorf("a packet to %s was dropped, but not by podwall's chain", to)
	}
	return "", nil
}

// send sends one datagram. A drop in the output path is reported as EPERM.
func send(ctx context.Context, to netip.Addr) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("podwall self-test"))
	return errors.Join(err, c.Close())
}

func makeTestLink() (netlink.Link, error) {
	if err := removeSelfTest(); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = testLink
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: testPeer}); err != nil {
		return nil, fmt.Errorf("making interface %s: %w", testLink, err)
	}
	for _, name := range []string{testPeer, testLink} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("finding interface %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("setting interface %s up: %w", name, err)
		}
	}
	return netlink.LinkByName(testLink)
}

// route gives the test link a neighbouring address and adds the destination as a permanent neighbour, so
// that no address resolution is needed.
func route(link netlink.Link, to netip.Addr) error {
	own := netip.PrefixFrom(neighbouring(to), to.BitLen())
	addr, err := netlink.ParseAddr(own.String())
	if err != nil {
		return fmt.Errorf("parsing %s: %w", own, err)
	}
	addr.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("adding address %s: %w", own, err)
	}
	index := link.Attrs().Index
	dst := &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(to.BitLen(), to.BitLen())}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("adding a route to %s: %w", to, err)
	}
	neighbour := &netlink.Neigh{
		LinkIndex:    index,
		IP:           to.AsSlice(),
		State:        netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	}
	if err := netlink.NeighSet(neighbour); err != nil {
		return fmt.Errorf("adding neighbour %s: %w", to, err)
	}
	return nil
}

// SelfTestAddresses returns the addresses that the self-test uses: no pod can have one.
func SelfTestAddresses() (list []netip.Addr) {
	for _, f := range inet.Families {
		list = append(list, ruleset.SelfTest(f), neighbouring(ruleset.SelfTest(f)))
	}
	return list
}

// neighbouring returns the address with its last bit flipped.
func neighbouring(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] ^= 1
	other, _ := netip.AddrFromSlice(b)
	return other
}

// removeSelfTest removes the interfaces, including those of a process that died.
func removeSelfTest() error {
	link, err := netlink.LinkByName(testLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for interface %s: %w", testLink, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("removing interface %s: %w", testLink, err)
	}
	return nil
}
