// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/observe"
)

// Place is what the loop needs to make sure that this network namespace is the
// node's: an agent in another one would enforce nothing, or close what it does
// not know.
type Place struct {
	// Local returns the addresses of this network namespace.
	Local func() ([]netip.Addr, error)
	// Found receives the addresses of the node, each time that they changed.
	Found func([]netip.Addr)
	// Optional: the source need not know any Node. A directory of manifests may
	// hold none, the API of a cluster always does.
	Optional bool

	addrs  []netip.Addr // as Found received them
	told   bool         // Found was called
	passed bool         // the check has passed once
	said   string       // what the log said last
}

// placeSubject is the identity of the problem of a node that is not, or no
// longer, known to be this one.
const placeSubject = "node"

// judgePlace judges the Node of this agent, which is nil if there is none; known
// returns all that there are. It returns the node's addresses if the check passed,
// a problem if it cannot be made yet, and an error if the Node is another machine's.
// Without any Node a check that is optional passes.
func judgePlace(node string, own *cluster.Node, known func() []*cluster.Node, local []netip.Addr,
	optional bool) ([]netip.Addr, *observe.Problem, error) {
	if own == nil {
		all := known()
		if len(all) == 0 && optional {
			return nil, nil, nil
		}
		return nil, notFound(node, all), nil
	}
	if len(own.Addrs) == 0 {
		return nil, &observe.Problem{Subject: placeSubject, Text: fmt.Sprintf("Node %s has no addresses yet", node),
			Cure: "nothing, if it was just made; else let the kubelet or the cloud provider write its " +
				"status.addresses"}, nil
	}
	if !slices.ContainsFunc(own.Addrs, func(a netip.Addr) bool { return slices.Contains(local, a) }) {
		return nil, nil, fmt.Errorf("none of the addresses of node %s (%s) is in this network namespace", node,
			join(own.Addrs))
	}
	return own.Addrs, nil, nil
}

func notFound(node string, known []*cluster.Node) *observe.Problem {
	p := &observe.Problem{Subject: placeSubject, Text: fmt.Sprintf("there is no Node %q; ", node),
		Cure: "set NODE_NAME from the field spec.nodeName, or give the Node's name with --hostname-override"}
	names := make([]string, len(known))
	for i, n := range known {
		names[i] = n.Name
	}
	switch near := config.Nearest(node, names, maxNames); {
	case len(near) == 0:
		p.Text += "no Node can be seen"
	case len(near) < len(names):
		p.Text += fmt.Sprintf("of %d Nodes the names most like it are %s", len(names), strings.Join(near, ", "))
	default:
		p.Text += "Nodes are " + strings.Join(near, ", ")
	}
	return p
}

// maxNames is how many Nodes a message names.
const maxNames = 5

// awaitPlace returns when the node is known to be this one. There is no time-out:
// a restart cures nothing. It returns nil also when ctx ends.
func (l *Loop) awaitPlace(ctx context.Context) error {
	beat := time.NewTicker(min(l.SyncPeriod, time.Second))
	defer beat.Stop()
	for {
		l.Observer.Beat()
		if err := l.checkPlace(); err != nil || l.Place == nil || l.Place.passed {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.Store.Changed():
		case <-beat.C:
		}
	}
}

// checkPlace makes the check. Before it has passed for the first time a Node that
// is another machine's is an error, and nothing is enforced without it; after that
// everything is a problem, and enforcement goes on.
func (l *Loop) checkPlace() error {
	if l.Place == nil {
		return nil
	}
	local, err := l.Place.Local()
	if err != nil {
		l.placeProblem(&observe.Problem{Subject: placeSubject,
			Text: "the addresses of this network namespace cannot be read: " + err.Error(),
			Cure: "nothing, it is tried again"})
		return nil
	}
	addrs, problem, err := judgePlace(l.Node, l.Store.Node(l.Node), l.Store.Nodes, local, l.Place.Optional)
	switch {
	case err != nil && !l.Place.passed:
		return fmt.Errorf("%w: %w; run with hostNetwork, or correct NODE_NAME or --hostname-override", ErrPlacement,
			err)
	case err != nil:
		problem = &observe.Problem{Subject: placeSubject, Text: err.Error(),
			Cure: "correct the Node's status.addresses, or restart the agent in the right place"}
	case problem == nil:
		l.placed(addrs)
	}
	l.placeProblem(problem)
	return nil
}

// placed notes that the check passed.
func (l *Loop) placed(addrs []netip.Addr) {
	p := l.Place
	if (!p.told || !slices.Equal(p.addrs, addrs)) && len(addrs) > 0 {
		p.Found(addrs)
		p.told, p.addrs = true, addrs
	}
	p.passed = true
}

// placeProblem sets or clears the problem. It blocks until the check has passed
// once: nothing is enforced before. The log has it first, so that whoever sees the
// problem finds the line.
func (l *Loop) placeProblem(p *observe.Problem) {
	if p == nil {
		if l.Place.said != "" {
			observe.LogResolved(l.Log, placeSubject)
		}
		l.Place.said = ""
		l.Observer.ClearProblem(placeSubject)
		return
	}
	p.Blocking = !l.Place.passed
	if p.Text != l.Place.said {
		consequence := "enforcement goes on with the addresses that were known"
		if p.Blocking {
			consequence = "the kernel stays as it is until the Node is found"
		}
		p.Log(l.Log, "consequence", consequence)
	}
	l.Place.said = p.Text
	l.Observer.SetProblem(*p)
}
