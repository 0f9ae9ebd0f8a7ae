// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
)

// setting is a sysctl that IPVS needs.
type setting struct {
	name, value string
	without     string // what goes wrong without it
	least       bool   // higher values are stricter, and stay
}

// tracking must be on: packets of IPVS would pass the policies unseen, and nothing could be masqueraded.
const tracking = "net/ipv4/vs/conntrack"

func settings() []setting {
	return []setting{
		{"net/ipv4/vs/expire_nodest_conn", "1", "connections to endpoints that are gone hang", false},
		{"net/ipv4/vs/expire_quiescent_template", "1", "clients with affinity come back to endpoints that end", false},
		{"net/ipv4/conf/all/arp_ignore", "1", "the node answers ARP for addresses of Services that others announce",
			true},
		{"net/ipv4/conf/all/arp_announce", "2", "the node announces addresses of Services in ARP", true},
	}
}

// settings sets what IPVS needs. An error says that policies would not hold: nothing may be led to IPVS then.
func (p *Proxy) settings() error {
	if err := p.write(setting{name: tracking, value: "1"}); err != nil {
		return fmt.Errorf("IPVS would hide the packets of Services from policies: sysctl %s=1: %w%s",
			dotted(tracking), err, readOnly(err))
	}
	p.set = nil
	for _, s := range settings() {
		if err := p.write(s); err != nil {
			p.set = append(p.set, Problem{"sysctl " + dotted(s.name), fmt.Sprintf("%s: %v", s.without, err),
				fmt.Sprintf("sysctl %s=%s on the node%s", dotted(s.name), s.value, readOnly(err))})
		}
	}
	if err := p.timeouts(); err != nil {
		p.set = append(p.set, Problem{"timeouts of IPVS", fmt.Sprintf("connections of Services end at other times "+
			"than --service-tcp-timeout and its like say: %v", err), "give shorter ones, or leave these flags out"})
	}
	return nil
}

// timeouts sets those that the operator asks for.
func (p *Proxy) timeouts() error {
	if p.wants.Timeouts == (kernel.Timeouts{}) {
		return nil
	}
	is, err := p.conn.Timeouts()
	if err != nil || p.wants.Timeouts.Or(is) == is {
		return err
	}
	if err := p.conn.SetTimeouts(p.wants.Timeouts); err != nil {
		return err
	}
	now := fmt.Sprintf("%+v", p.wants.Timeouts.Or(is))
	p.log.Info("timeouts of IPVS changed", "was", fmt.Sprintf("%+v", is), "now", now)
	return nil
}

// write sets a sysctl, unless it has the value, or a stricter one.
func (p *Proxy) write(s setting) error {
	is, err := p.wants.Sysctls.Read(s.name)
	if err != nil || is == s.value || s.least && above(is, s.value) {
		return err
	}
	if err := p.wants.Sysctls.Write(s.name, s.value); err != nil {
		return err
	}
	p.log.Info("setting changed for IPVS", "setting", dotted(s.name), "was", is, "value", s.value)
	return nil
}

// above reports whether both are numbers and the first is greater.
func above(is, value string) bool {
	a, err := strconv.Atoi(is)
	b, other := strconv.Atoi(value)
	return err == nil && other == nil && a > b
}

func dotted(name string) string { return strings.ReplaceAll(name, "/", ".") }

// readOnly says what helps where a container has the settings for reading only.
func readOnly(err error) string {
	if !errors.Is(err, unix.EROFS) {
		return ""
	}
	return "; or let the agent do it: mount the node's /proc/sys/net into its container at DIR/net, writable, and " +
		"run it with --sysctl-root=DIR"
}
