// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
	"github.com/podwall/podwall/internal/lab/measure/witness"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// world is a node with one proxy, and a cluster of Services around it.
type world struct {
	size  Size
	proxy proxy

	dir            string
	bed            *lab.Bed
	node           *lab.Endpoint
	client, server *lab.Endpoint
	api            *listwatch.Server
	serving        *listwatch.Serving
	kernel         *witness.Witness
	program        *process.Process // nil before it starts and after it ended
	tables         *lab.Tables
	flows          *netlink.Handle
	fresh          int // endpoints made so far
}

const apiPort = 6443

// build makes the node and the cluster.
func (w *world) build(ctx context.Context) (err error) {
	if w.dir, err = os.MkdirTemp("", "podwall-bench-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if w.bed, err = lab.NewBed(lab.Config{Wiring: w.size.wiring(), Nodes: []string{nodeName}}); err != nil {
		return err
	}
	w.node = w.bed.Node(nodeName)
	if w.tables, err = lab.NewTables(w.node); err != nil {
		return err
	}
	w.flows, err = netlink.NewHandleAt(vnetns.NsHandle(w.node.NS.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("opening the connection table: %w", err)
	}
	if err := w.bridge(); err != nil {
		return err
	}
	add := func(name string, addrs ...netip.Addr) (*lab.Endpoint, error) {
		return w.bed.AddPod(lab.PodSpec{Key: key(name), Node: nodeName, IPs: addrs})
	}
	if w.client, err = add("client", w.size.clientAddr()); err != nil {
		return err
	}
	if w.server, err = add("server", w.size.endpoints()...); err != nil {
		return err
	}
	for _, e := range []*lab.Endpoint{w.client, w.server} {
		if err := e.NS.SetSysctls(append(lab.ManyConnections(), forgetful())); err != nil {
			return err
		}
	}
	return w.serve(ctx)
}

func (s Size) wiring() lab.Wiring {
	if s.Bridge {
		return lab.Bridge
	}
	return lab.Routed
}

// bridge has the node's bridge show its packets to the IP hooks, as every proxy wants it.
func (w *world) bridge() error {
	if !w.size.Bridge {
		return nil
	}
	return w.node.NS.Do(func() error {
		i, err := net.InterfaceByName(lab.BridgeName)
		if err != nil {
			return fmt.Errorf("looking for the bridge: %w", err)
		}
		return links.SetBridge(i.Index, links.Bridged{IPv4: true, IPv6: true})
	})
}

// forgetful ends a connection without the state TIME_WAIT. All Services have the same endpoints here, and the
// kernel's clock of a connection depends on the address that is called: a server would refuse a new connection
// that has the port of an old one to another Service, and the client's answer to that is invalid for the node,
// where kube-proxy drops it. Both would wait for a minute.
func forgetful() netns.Sysctl { return netns.Sysctl{Path: "ipv4/tcp_max_tw_buckets", Value: "0"} }

// serve starts the API server with all Services.
func (w *world) serve(ctx context.Context) error {
	host, err := w.bed.AddHost("api", []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, 1})})
	if err != nil {
		return err
	}
	w.api = listwatch.New()
	for _, o := range w.size.objects(w.node.Addrs) {
		if _, err := w.api.Put(o); err != nil {
			return err
		}
	}
	w.api.Forget() // what it was filled with is no news
	w.serving, err = w.api.ServeIn(ctx, host.NS, netip.AddrPortFrom(host.Addrs[0], apiPort), w.dir)
	return err
}

// close ends everything that was started; what was not is nil.
func (w *world) close() error {
	errs := []error{w.end()}
	if w.kernel != nil {
		errs = append(errs, w.kernel.Close())
	}
	if w.serving != nil {
		errs = append(errs, w.serving.Close())
	}
	if w.tables != nil {
		errs = append(errs, w.tables.Close())
	}
	if w.flows != nil {
		w.flows.Close()
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// end ends the program; its rules stay.
func (w *world) end() error {
	if w.program == nil {
		return nil
	}
	p := w.program
	w.program = nil
	return p.Stop()
}

// patience is how long a proxy may take. kube-proxy 1.35 needs half a minute for 10,000 Services.
const patience = 5 * time.Minute

// await returns when the kernel showed the last of what is expected.
func (w *world) await(ctx context.Context, seen *witness.Arrival) (time.Time, error) {
	return w.kernel.Await(ctx, seen, patience, w.program)
}
