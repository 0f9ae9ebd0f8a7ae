// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/netpol/decide"
)

// The kernel's files about IPVS, in the calling thread's network namespace.
const (
	ipvsServices = "/proc/thread-self/net/ip_vs"
	ipvsTracking = "net/ipv4/vs/conntrack"
)

// ipvs reports IPVS services whose packets bypass connection tracking: IPVS marks them as untracked if the
// setting is 0, the kernel's default. Untracked packets enter no nat chain, and IPVS packets do not cross
// forward, where the guard is.
func (d *Datapath) ipvs(report *Report) {
	d.untracked = untrackedIPVS(d.options.Sysctls)
	if d.untracked != "" {
		report.add(decide.Problem{Subject: "ipvs", Text: d.untracked, Cure: "sysctl net.ipv4.vs.conntrack=1",
			Blocking: true})
	}
}

// ipvsMoved reports whether that has changed: the kernel does not notify about it.
func (d *Datapath) ipvsMoved() bool { return untrackedIPVS(d.options.Sysctls) != d.untracked }

// untrackedIPVS describes the problem, or returns "" if there is none.
func untrackedIPVS(s sysctl.Dir) string {
	used, err := IPVSInUse()
	if err != nil {
		return "policies may not hold for Services of IPVS: " + err.Error()
	}
	if !used {
		return ""
	}
	value, err := s.Read(ipvsTracking)
	if err != nil {
		// A kernel without this file never tracks packets of IPVS.
		return "policies do not hold for Services of IPVS: " + err.Error()
	}
	if value == "0" {
		return "policies do not hold for Services of IPVS: net.ipv4.vs.conntrack is 0, " +
			"so IPVS hides their packets from connection tracking and from our chains"
	}
	return ""
}

// IPVSInUse reports whether IPVS has services in this network namespace.
func IPVSInUse() (bool, error) {
	file, err := os.Open(ipvsServices)
	if err != nil {
		return false, nil // the kernel has no IPVS, or it is not loaded
	}
	defer file.Close()
	return usesIPVS(file)
}

// usesIPVS reports whether a listing of IPVS has a service: an unindented line after the heading. It stops
// at the first.
func usesIPVS(listing io.Reader) (bool, error) {
	lines := bufio.NewScanner(listing)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "", strings.HasPrefix(line, " "),
			strings.HasPrefix(line, "IP Virtual Server "), strings.HasPrefix(line, "Prot "):
			continue
		}
		return true, nil
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("reading the services of IPVS: %w", err)
	}
	return false, nil
}
