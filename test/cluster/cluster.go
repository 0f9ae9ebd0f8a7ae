// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	own "github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// Cluster is a running cluster. Its methods may be called from several
// goroutines, except Close.
type Cluster struct {
	options  Options
	plan     plan
	dir      string
	began    time.Time
	fabric   *own.NS
	server   *kubeapi.Server
	client   *kubernetes.Clientset
	asker    *kubernetes.Clientset // is not held back, for answers to pods
	programs []*process.Process    // of the control plane
	nodes    []*Node
	names    *names // nil unless the options have tools
}

// patience is how long Start waits for one thing, on a busy machine.
const patience = 2 * time.Minute

// Start starts a cluster and returns when its nodes are ready for pods. The
// caller must call Close.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	if err := errors.Join(o.complete(), removeStale()); err != nil {
		return nil, err
	}
	c := &Cluster{options: o, plan: plan{o.DualStack}, began: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid())); err != nil {
		return nil, err
	}
	if c.fabric, err = newFabric(c.plan); err != nil {
		return nil, err
	}
	if err := c.startControl(ctx); err != nil {
		return nil, err
	}
	c.say("the API server is ready")
	if c.options.Tools {
		if c.names, err = startNames(c.fabric, c.plan.fabric(1)[0].Addr(), c.asker); err != nil {
			return nil, err
		}
	}
	if err := c.startNodes(ctx); err != nil {
		return nil, err
	}
	c.say("%d nodes are ready", len(c.nodes))
	return c, nil
}

func (c *Cluster) say(format string, args ...any) {
	c.options.Say("[%5.1f s] %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// startNodes starts all nodes side by side.
func (c *Cluster) startNodes(ctx context.Context) error {
	archives, err := c.ownImages()
	if err != nil {
		return err
	}
	for i := range c.options.Nodes {
		c.nodes = append(c.nodes, c.newNode(i+1, append(archives, c.options.Images...)))
	}
	failures := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() { failures[i] = n.boot(ctx) })
	}
	wg.Wait()
	return errors.Join(errors.Join(failures...), c.awaitAccount(ctx))
}

// Close ends the cluster and removes everything of it. It returns what could not
// be removed.
func (c *Cluster) Close() error {
	var err error
	for _, n := range c.nodes {
		err = errors.Join(err, n.down(), removeGroups(n.group()))
	}
	if c.names != nil {
		c.names.close()
	}
	for _, p := range slices.Backward(c.programs) {
		p.Kill() // nothing of it is kept
	}
	if c.server != nil {
		err = errors.Join(err, c.server.Stop())
	}
	if c.fabric != nil {
		err = errors.Join(err, c.fabric.Close())
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	c.say("the cluster is gone")
	return err
}

// Client returns a client with all rights.
func (c *Cluster) Client() *kubernetes.Clientset { return c.client }

// Nodes returns the nodes, in order.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Dir is a directory for files that live as long as the cluster.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is the name of a file with all rights, for programs in the network
// of the control plane.
func (c *Cluster) Kubeconfig() string { return c.server.Kubeconfig }

// Command returns a program that will run in the network of the control plane,
// with a start function for it.
func (c *Cluster) Command(ctx context.Context, program string, args ...string) (*exec.Cmd, func() error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HOME="+c.dir)
	return cmd, func() error { return c.fabric.Start(cmd) }
}

// Kubectl runs kubectl with all rights and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	cmd, start := c.Command(ctx, filepath.Join(c.options.Bin, "kube"), append([]string{"kubectl"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	return output(cmd, start, "kubectl", args)
}

// Helm runs helm with all rights and returns its output.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	cmd, start := c.Command(ctx, filepath.Join(c.options.Bin, "helm"), args...)
	return output(cmd, start, "helm", args)
}

func output(cmd *exec.Cmd, start func() error, name string, args []string) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), err
}

// Await asks until the answer is nil, as long as the patience lasts. Its error
// is the last answer that was complete.
func Await(ctx context.Context, what string, patience time.Duration, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Fabric is the network of the control plane: for the nodes a machine outside of the cluster.
func (c *Cluster) Fabric() *own.NS { return c.fabric }

// APIServer is the API server's own address, which needs no Service.
func (c *Cluster) APIServer() netip.AddrPort {
	return netip.AddrPortFrom(c.plan.fabric(1)[0].Addr(), controlPort)
}

// ServiceRanges are those from which Services get their cluster addresses.
func (c *Cluster) ServiceRanges() []netip.Prefix { return prefixes(c.plan.list(services4, services6)) }

// FabricFD is the descriptor of the network of the control plane in this
// program, by which other programs can enter it.
func (c *Cluster) FabricFD() int { return c.fabric.FD() }
