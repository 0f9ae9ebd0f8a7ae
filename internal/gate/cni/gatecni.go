// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package cni is the chained CNI plugin podwall-gate, and its installer.
// The plugin comes after the plugins that wire a pod: it takes the addresses
// from their result, announces the pod at the agent's gate (package gate), and
// lets it start when the kernel has its verdicts.
//
// It wires nothing and passes the result on as it came. It never opens: a pod
// that starts without an answer is closed in the kernel. The installer writes
// the plugin's entry into the pod network's configuration, and nothing else.
package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/podwall/podwall/internal/gate"
)

// Plugin answers a container runtime.
type Plugin struct {
	// Skeleton makes sure that the kernel has a table (one in which no pod is known,
	// on a node that just started) and that the pod's packets meet it, also those of
	// connections from before the pod. It is given the pod's interfaces on the node's
	// side, among them its bridge, and its addresses. It is called before an agent
	// is asked, since what that allows must not be touched. Nil does nothing.
	Skeleton func(ctx context.Context, links []string, addrs []netip.Addr) error
	// Out takes the result, Log what people may want to know.
	Out, Log io.Writer
}

// Name is the plugin's type in configurations, and the name of its program.
const Name = "podwall-gate"

// interfaceOfPod is the interface that carries a pod's own addresses. Runtimes
// of Kubernetes use no other name; further networks of a pod have others, and
// policies do not speak about them.
const interfaceOfPod = "eth0"

// Main runs the command that the environment names and returns the exit status.
func (p Plugin) Main(release string) int {
	funcs := skel.CNIFuncs{Add: p.add, Check: p.check, Del: p.del, GC: p.gc, Status: p.status}
	err := skel.PluginMainFuncsWithError(funcs, version.All, Name+" "+release)
	if err == nil {
		return 0
	}
	if err := err.Print(); err != nil {
		fmt.Fprintf(p.Log, "%s: printing the error: %v\n", Name, err)
	}
	return 1
}

// add announces the pod and waits for the kernel.
func (p Plugin) add(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	result, err := c.result()
	if err != nil {
		return err
	}
	if pod, ok, err := podOf(c, args, result); err != nil {
		return err
	} else if ok {
		if err := p.announce(c, pod); err != nil {
			return err
		}
	} else {
		p.logf("nothing to announce for %s of %s: it is no interface of a Kubernetes pod that policies speak about",
			args.IfName, args.ContainerID)
	}
	return c.pass(p.Out, result)
}

// announce returns an error if the pod must not start.
func (p Plugin) announce(c config, pod gate.Pod) error {
	d := gate.Admission{Client: gate.Client{Socket: c.Socket}, Close: p.Skeleton, CloseWait: shortWait,
		Wait: c.wait, Refuse: c.OnTimeout == onTimeoutRefuse}.Admit(pod)
	name := pod.Namespace + "/" + pod.Name
	switch d.Verdict {
	case gate.StartEnforced:
		if d.NotClosed != nil {
			p.logf("pod %s was not closed before it was enforced: %v", name, d.NotClosed)
		}
		return nil
	case gate.StartClosed:
		p.logf("pod %s starts closed: not enforced after %s: %s", name, c.wait, d.Why())
		return nil
	case gate.TooLate:
		return types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("pod %s is not enforced after %s (onTimeout is %q)", name, c.wait, onTimeoutRefuse), d.Why())
	}
	return types.NewError(types.ErrTryAgainLater,
		fmt.Sprintf("pod %s would start open: it is not enforced (%s), and it could not be closed", name, d.Why()),
		d.NotClosed.Error()+"; start podwall-agent on this node")
}

// pluginNotAvailable is the code with which STATUS says that no pod can be added
// (CNI specification 1.1.0, section 5).
const pluginNotAvailable = 50

// shortWait is the time for what must not hold a pod up: it is going away, or
// no caller waits for an answer.
const shortWait = 2 * time.Second

// del withdraws. It never fails: without an agent nothing is announced.
func (p Plugin) del(args *skel.CmdArgs) error {
	if args.IfName != interfaceOfPod {
		return nil
	}
	c, err := parse(args.StdinData)
	if err != nil {
		p.logf("using the default socket: %v", err)
		c.Socket = gate.DefaultSocket
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortWait)
	defer cancel()
	if err := (gate.Client{Socket: c.Socket}).Del(ctx, args.ContainerID); err != nil {
		p.logf("not withdrawing %s: %v", args.ContainerID, err)
	}
	return nil
}

// check asks whether the pod is enforced. A sandbox that the agent does not
// remember, because it was started again, is announced again.
func (p Plugin) check(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	result, err := c.result()
	if err != nil {
		return err
	}
	pod, ok, err := podOf(c, args, result)
	if err != nil || !ok {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.wait)
	defer cancel()
	client := gate.Client{Socket: c.Socket}
	reply, err := client.Check(ctx, pod.Sandbox)
	if err == nil && reply.State == gate.Unknown {
		reply, err = client.Add(ctx, pod)
	}
	switch {
	case err != nil:
		return types.NewError(types.ErrTryAgainLater, "asking whether the pod is enforced", err.Error())
	case reply.State != gate.Enforced:
		return types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("pod %s/%s is closed: %s", pod.Namespace, pod.Name, reply.State), reply.Text)
	}
	return nil
}

// status says whether pods can be started: an agent must answer.
func (p Plugin) status(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortWait)
	defer cancel()
	if _, err := (gate.Client{Socket: c.Socket}).List(ctx); err != nil {
		return types.NewError(pluginNotAvailable, "pods would start closed: "+err.Error(),
			"start podwall-agent on this node with --gate-socket="+c.Socket)
	}
	return nil
}

// gc withdraws what was announced through this network and is attached no more.
func (p Plugin) gc(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	client := gate.Client{Socket: c.Socket}
	ctx, cancel := context.WithTimeout(context.Background(), shortWait)
	defer cancel()
	known, err := client.List(ctx)
	if err != nil {
		p.logf("nothing to collect: %v", err) // without an agent nothing is announced
		return nil
	}
	var errs []error
	for _, k := range known {
		valid := slices.ContainsFunc(c.ValidAttachments, func(a types.GCAttachment) bool {
			return a.ContainerID == k.Pod.Sandbox
		})
		if k.Pod.Network == c.Name && !valid {
			errs = append(errs, client.Del(ctx, k.Pod.Sandbox))
		}
	}
	return errors.Join(errs...)
}

func (p Plugin) logf(format string, args ...any) {
	fmt.Fprintf(p.Log, Name+": "+format+"\n", args...)
}

// New returns a plugin that talks to the runtime that started this process.
func New(skeleton func(context.Context, []string, []netip.Addr) error) Plugin {
	return Plugin{Skeleton: skeleton, Out: os.Stdout, Log: os.Stderr}
}
