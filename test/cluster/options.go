// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Wiring is how a node connects its pods.
type Wiring string

// The wirings, by the name of the CNI plugin.
const (
	PTP    Wiring = "ptp"    // a routed pair of links for each pod
	Bridge Wiring = "bridge" // one bridge for all pods of a node
)

// Proxy is a mode of kube-proxy.
type Proxy string

// The modes of kube-proxy.
const (
	Nftables Proxy = "nftables"
	Iptables Proxy = "iptables"
	// NoProxy leaves Services to what is installed later.
	NoProxy Proxy = "none"
)

// Options say what kind of cluster to start. The zero value is one node, wired by
// ptp, with kube-proxy in nftables mode, IPv4 only.
type Options struct {
	// Bin is where `make` left the programs: absolute, or empty for bin/ beside
	// the nearest go.mod above the working directory.
	Bin string
	// Nodes is their number, nine at most; 0 means one.
	Nodes  int
	Wiring Wiring // PTP if empty
	Proxy  Proxy  // Nftables if empty
	// DualStack gives nodes, pods and services IPv6 addresses too, after those of IPv4.
	DualStack bool
	// PodAddresses is how many addresses of a family each node has for its pods;
	// 0 means some 250.
	PodAddresses int
	// Images are archives that every node has from the start, beside those of
	// agnhost and pause.
	Images []string
	// Tools gives the pods' image a shell, curl, wget and nc of this machine, and makes names of Services known to
	// pods. Most specs and scenarios need neither, and start faster without.
	Tools bool
	// Zones is how many zones the nodes are spread over, in turn; 0 means that no node says where it is.
	Zones int
	// Say is told what takes long; nil means nobody.
	Say func(format string, args ...any)
}

const maxNodes = 9

// ErrCannot is the error of Start where the programs, or the rights that they
// need, are missing.
var ErrCannot = errors.New("no cluster can be started here")

// complete fills in what is empty, and says what cannot be.
func (o *Options) complete() (err error) {
	o.Nodes = max(o.Nodes, 1)
	if o.Wiring == "" {
		o.Wiring = PTP
	}
	if o.Proxy == "" {
		o.Proxy = Nftables
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Bin == "" {
		o.Bin, err = binBesideModule()
	}
	switch {
	case err != nil:
		return err
	case o.Nodes > maxNodes:
		return fmt.Errorf("%d nodes are asked for, %d are possible", o.Nodes, maxNodes)
	case o.Wiring != PTP && o.Wiring != Bridge:
		return fmt.Errorf("wiring %q is neither %s nor %s", o.Wiring, PTP, Bridge)
	case o.Proxy != Nftables && o.Proxy != Iptables && o.Proxy != NoProxy:
		return fmt.Errorf("proxy mode %q is none of %s, %s, %s", o.Proxy, Nftables, Iptables, NoProxy)
	case os.Geteuid() != 0:
		return fmt.Errorf("%w: it needs root", ErrCannot)
	}
	return o.built()
}

// built says which program is missing.
func (o *Options) built() error {
	for program, target := range map[string]string{
		"kubeapi": "kubeapi", "kube-proxy": "kubeapi", "kube": "kube", "agnhost": "kube", "pause": "kube",
		"helm":                  "helm",
		"containerd/containerd": "containerd", "containerd/containerd-shim-runc-v2": "containerd",
		"containerd/ctr": "containerd", "containerd/runc": "containerd",
		"cni/bridge": "cni", "cni/ptp": "cni", "cni/host-local": "cni", "cni/portmap": "cni"} {
		_, err := os.Stat(filepath.Join(o.Bin, program))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is not built: run `make %s`", ErrCannot, program, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func binBesideModule() (string, error) {
	start, err := os.Getwd()
	for dir := start; err == nil; dir = filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return filepath.Join(dir, "bin"), nil
		}
		if dir == filepath.Dir(dir) {
			err = fmt.Errorf("looking for go.mod: none above %s", start)
		}
	}
	return "", err
}
