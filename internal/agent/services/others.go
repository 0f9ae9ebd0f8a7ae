// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/foreign"
)

// Others watches for other service proxies on the node. Before the first pass one that is found keeps this
// one from starting; after it a take-over removes what a proxy that has stopped left (ADR 0030).
type Others struct {
	// Look reads the inventory, with IPVS.
	Look func(context.Context) (foreign.Inventory, error)
	// Remove carries out a plan.
	Remove func(context.Context, foreign.Plan) error
	// Pods returns the pods of other proxies that the API server lists for this node, in words. May be nil.
	Pods     func() []foreign.Sign
	TakeOver bool
	Log      *slog.Logger

	marks   []string // of the last look
	quiet   int      // looks in a row with these marks
	removed bool     // what the other proxy left was removed: if it comes back, that proxy runs
}

const (
	// quietLooks is how many looks in a row must find the same before a take-over: a proxy that runs writes.
	quietLooks = 3
	// lookEach is how often is looked while Services are served.
	lookEach = 30 * time.Second
)

// Watch looks from time to time while Services are served, and gives what it finds to the receiver of found,
// until ctx ends. A look may take seconds: it asks the ports of other proxies.
func (o *Others) Watch(ctx context.Context, found chan<- []observe.Problem) {
	for {
		select {
		case <-ctx.Done():
			return
		case found <- o.Check(ctx, true):
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEach):
		}
	}
}

// otherProxy is the subject of the problem that another proxy is there.
const otherProxy = "other service proxy"

// Check returns what another proxy is a problem of; nothing if there is none. serving says that the first pass
// has succeeded: then a take-over removes what is left.
func (o *Others) Check(ctx context.Context, serving bool) []observe.Problem {
	inv, err := o.Look(ctx)
	if err != nil {
		return one("it cannot be seen whether another service proxy is here: "+err.Error(),
			"nothing, it is tried again")
	}
	o.addSigns(&inv)
	plan := foreign.Decide(inv, o.TakeOver)
	switch {
	case o.removed:
		return problemsOf(plan)
	case len(plan.Refusals) > 0:
		return refusal(plan.Refusals, serving)
	case !o.TakeOver || len(plan.Found) == 0:
		return nil
	case o.quiet < quietLooks:
		return one("the take-over waits to see whether "+plan.Found[0].Proxy+" still writes",
			"nothing, it takes some seconds")
	case !serving:
		return nil
	}
	return o.takeOver(ctx, plan)
}

func one(text, cure string) []observe.Problem {
	return []observe.Problem{{Subject: otherProxy, Text: text, Cure: cure}}
}

// problemsOf returns what is wrong after a take-over.
func problemsOf(plan foreign.Plan) (list []observe.Problem) {
	for _, p := range plan.Problems() {
		list = append(list, observe.Problem{Subject: p.Subject, Text: p.Text, Cure: p.Cure})
	}
	return list
}

// addSigns adds signs that another proxy runs: its pods, and rules that changed since the last look.
func (o *Others) addSigns(inv *foreign.Inventory) {
	if o.Pods != nil {
		inv.Running = append(inv.Running, o.Pods()...)
	}
	marks := foreign.Marks(*inv)
	if slices.Equal(marks, o.marks) {
		o.quiet++
		return
	}
	if found := foreign.Decide(*inv, true).Found; o.quiet > 0 && len(found) > 0 && !o.removed {
		inv.Running = append(inv.Running, foreign.Sign{Proxy: found[0].Proxy, Text: "its rules changed just now"})
	}
	o.marks, o.quiet = marks, 1
}

// takeOver removes what a proxy that has stopped left, and looks again.
func (o *Others) takeOver(ctx context.Context, plan foreign.Plan) []observe.Problem {
	for _, s := range plan.Steps {
		o.Log.Info("taking over from another service proxy", "step", s.String())
	}
	if err := o.Remove(ctx, plan); err != nil {
		return one("what another service proxy left cannot be removed: "+err.Error(), "nothing, it is tried again")
	}
	o.removed = true
	return o.Check(ctx, true)
}

// refusal says why the proxy does not start, or that another one came to it.
func refusal(list []foreign.Refusal, serving bool) []observe.Problem {
	text := list[0].Why
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	if serving {
		text += "; two proxies serve Services on this node"
	}
	return one(text, list[0].Cure)
}
