// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// plugged wires pods by the CNI plugins (CNI specification 1.0.0): processes
// that run in the node's namespace, with their configuration on standard input.
type plugged struct {
	bed    *Bed
	plugin string // bridge or ptp
}

func newPlugged(b *Bed) (plugged, error) {
	w := plugged{bed: b, plugin: strings.TrimPrefix(string(b.cfg.Wiring), "cni-")}
	for _, name := range []string{w.plugin, "host-local"} {
		if _, err := os.Stat(filepath.Join(b.cfg.CNIBin, name)); err != nil {
			return w, fmt.Errorf("finding the CNI plugins: %w", err)
		}
	}
	return w, nil
}

func (plugged) prepare(*node) error { return nil }

func (w plugged) detach(p *pod) error {
	_, err := w.run("DEL", p)
	if n := p.node; n.bridge != nil {
		for _, a := range further(p.Addrs) {
			err = errors.Join(err, n.unroute(n.bridge, single(a), netip.Addr{}))
		}
	}
	return err
}

// plain are the addresses that a plugin gives: the first one of each family.
func plain(addrs []netip.Addr) (list []netip.Addr) {
	for i, a := range addrs {
		if i == firstOf(addrs, a) {
			list = append(list, a)
		}
	}
	return list
}

// further are those that a pod has beside them, as one that keepalived moves.
func further(addrs []netip.Addr) (list []netip.Addr) {
	for i, a := range addrs {
		if i != firstOf(addrs, a) {
			list = append(list, a)
		}
	}
	return list
}

func firstOf(addrs []netip.Addr, like netip.Addr) int {
	return slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == like.Is4() })
}

// addFurther gives a pod the addresses that its plugin does not, and the node the way
// to them.
func (w plugged) addFurther(p *pod) error {
	way := p.node.bridge
	if way == nil {
		var err error
		if way, err = p.node.up(p.HostDevice); err != nil {
			return err
		}
	}
	for _, a := range further(p.Addrs) {
		if err := errors.Join(p.address(p.link, single(a)), p.node.route(way, single(a), netip.Addr{})); err != nil {
			return err
		}
	}
	return nil
}

func (w plugged) attach(p *pod) error {
	result, err := w.run("ADD", p)
	if err != nil {
		return err
	}
	p.HostDevice = result.hostDevice()
	if p.link, err = p.up(device); err != nil {
		return err
	}
	watched := map[string]*space{device: p.space, p.HostDevice: p.node.space}
	if w.plugin == "bridge" {
		if p.node.bridge, err = p.node.up(BridgeName); err != nil {
			return err
		}
		watched[BridgeName] = p.node.space
		for _, a := range plain(p.Addrs) {
			p.node.addOnLink(w.bed.plan.subnet(a))
		}
	}
	p.LinkLocal = linkLocal(p.link.Attrs().HardwareAddr)
	for name, s := range watched {
		if err := s.settled(name); err != nil {
			return err
		}
	}
	for _, a := range plain(p.Addrs) {
		if err := errors.Join(p.local(p.link, a), p.node.local(p.node.link, w.bed.plan.gatewayOf(a))); err != nil {
			return err
		}
	}
	return w.addFurther(p)
}

// addOnLink notes a subnet that the plugin made.
func (n *node) addOnLink(s netip.Prefix) {
	for _, have := range n.subnets {
		if have == s {
			return
		}
	}
	n.subnets = append(n.subnets, s)
}

// settled returns when a link has a link-local address that may be used. The
// kernel makes it by itself, some moments after the link came up.
func (s *space) settled(name string) error {
	link, err := s.up(name)
	if err == nil {
		err = s.patient(link)
	}
	if err != nil {
		return err
	}
	for range 10_000 { // on a busy machine too
		addrs, err := s.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return fmt.Errorf("listing addresses of %s: %w", name, err)
		}
		ready := false
		for _, a := range addrs {
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				ready = false
				break
			}
			ready = ready || a.IP.IsLinkLocalUnicast()
		}
		if ready {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("waiting for the addresses of %s: not usable in ten seconds", name)
}

// network is a plugin's configuration.
type network struct {
	Version   string  `json:"cniVersion"`
	Name      string  `json:"name"`
	Type      string  `json:"type"`
	Bridge    string  `json:"bridge,omitempty"`
	IsGateway bool    `json:"isGateway,omitempty"`
	Hairpin   bool    `json:"hairpinMode,omitempty"`
	IPMasq    bool    `json:"ipMasq"`
	IPAM      ipam    `json:"ipam"`
	Runtime   runtime `json:"runtimeConfig"`
}

type ipam struct {
	Type    string              `json:"type"`
	DataDir string              `json:"dataDir"`
	Ranges  [][]addressRange    `json:"ranges"`
	Routes  []map[string]string `json:"routes"`
}

type addressRange struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
}

type runtime struct {
	IPs []netip.Prefix `json:"ips"`
}

// result is the part of a plugin's answer that is used here.
type result struct {
	Interfaces []struct{ Name, Sandbox string } `json:"interfaces"`
	Msg        string                           `json:"msg"`
	Details    string                           `json:"details"`
}

func (r result) hostDevice() string {
	for _, i := range r.Interfaces {
		if i.Sandbox == "" && i.Name != BridgeName {
			return i.Name
		}
	}
	return ""
}

func (w plugged) network(p *pod) network {
	c := network{Version: "1.0.0", Name: "lab", Type: w.plugin,
		IPAM: ipam{Type: "host-local", DataDir: filepath.Join(w.bed.dir, p.node.Name)}}
	if w.plugin == "bridge" {
		c.Bridge, c.IsGateway, c.Hairpin = BridgeName, true, w.bed.cfg.Hairpin
	}
	for _, a := range plain(p.Addrs) {
		s := w.bed.plan.subnet(a)
		c.IPAM.Ranges = append(c.IPAM.Ranges, []addressRange{{s, w.bed.plan.gateway(s)}})
		c.IPAM.Routes = append(c.IPAM.Routes, map[string]string{"dst": everything(a.Is6()).String()})
		c.Runtime.IPs = append(c.Runtime.IPs, netip.PrefixFrom(a, s.Bits()))
	}
	return c
}

func (w plugged) run(command string, p *pod) (result, error) {
	config, err := json.Marshal(w.network(p))
	if err != nil {
		return result{}, fmt.Errorf("writing the plugin's configuration: %w", err)
	}
	var out, complaint bytes.Buffer
	cmd := exec.Command(filepath.Join(w.bed.cfg.CNIBin, w.plugin))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), &out, &complaint
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + strings.TrimPrefix(hostDevice(p.Name), "veth"),
		"CNI_NETNS=" + p.ns.Path(), "CNI_IFNAME=" + device, "CNI_PATH=" + w.bed.cfg.CNIBin}
	err = p.node.ns.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var r result
	parseErr := json.Unmarshal(out.Bytes(), &r)
	if err != nil {
		return r, fmt.Errorf("running plugin %s %s: %w: %s %s %s", w.plugin, command, err, r.Msg, r.Details, &complaint)
	}
	if command == "ADD" && parseErr != nil {
		return r, fmt.Errorf("reading the answer of plugin %s: %w", w.plugin, parseErr)
	}
	return r, nil
}
