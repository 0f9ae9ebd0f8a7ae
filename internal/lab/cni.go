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
	return err
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
		for _, a := range p.Addrs {
			p.node.addOnLink(subnet(a))
		}
	}
	p.LinkLocal = linkLocal(p.link.Attrs().HardwareAddr)
	for name, s := range watched {
		if err := s.settled(name); err != nil {
			return err
		}
	}
	for _, a := range p.Addrs {
		if err := errors.Join(p.local(p.link, a), p.node.local(p.node.link, gateway(subnet(a)))); err != nil {
			return err
		}
	}
	return nil
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
	Subnet netip.Prefix `json:"subnet"`
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
		c.Bridge, c.IsGateway = BridgeName, true
	}
	for _, a := range p.Addrs {
		s := subnet(a)
		c.IPAM.Ranges = append(c.IPAM.Ranges, []addressRange{{s}})
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
