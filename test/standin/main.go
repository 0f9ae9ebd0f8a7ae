// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command standin puts rules of another shape into a lab node, for
// `podwall-lab bench --peer`: a chain for each pod of the node, reached by a list
// of jumps, and a chain for each policy of the cluster, with ipsets. It is a
// stand-in for the enforcer of the reference setup (its iptables backend, firewall
// only), written from a description of that shape, and shares no code with it.
//
// It owns nothing of podwall's data path and is no part of the product: only
// benchmarks start it, and no package imports it. It flatters what it stands for:
// it lists the cluster once, writes once, and never follows a change, so it has
// no control plane cost. IPv6 and named ports are left out. It never runs in the
// machine's own network namespace. At SIGTERM it takes away what it wrote.
//
// The physdev match lets the kernel load br_netfilter, as the real one does;
// whether bridged packets are shown to it is left as it was, as the real one
// leaves it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// written is what it says when its rules are in the kernel.
const written = "standin: rules are written"

func main() {
	iptables := flag.String("iptables", "iptables", "`PROGRAM` to write with: iptables, iptables-nft or "+
		"iptables-legacy; PROGRAM-restore must be there too")
	flag.Parse()
	if err := run(*iptables); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

// run writes the rules of a node, waits for SIGTERM or SIGINT and removes them.
func run(iptables string) (err error) {
	began := time.Now()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	node, kubeconfig := os.Getenv("NODE_NAME"), os.Getenv("KUBECONFIG")
	if err := safe(node, kubeconfig); err != nil {
		return err
	}
	c, err := list(ctx, kubeconfig)
	if err != nil {
		return fmt.Errorf("listing the cluster: %w", err)
	}
	// Chains get new names, and so another order, at every start, as they do at
	// every sync of the real one.
	r, err := render(c, node, strconv.FormatInt(began.UnixNano(), 10))
	if err != nil {
		return err
	}
	k := kernel{iptables: iptables, rules: r}
	defer func() { err = errors.Join(err, k.remove()) }()
	if err := k.write(); err != nil {
		return err
	}
	fmt.Printf("%s after %s: %d chains, %d rules, %d sets\n", written, time.Since(began).Round(time.Millisecond),
		len(r.chains), len(r.lines), len(r.sets))
	<-ctx.Done()
	return nil
}
