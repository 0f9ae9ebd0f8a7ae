// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/kuberouter"
	"github.com/podwall/podwall/internal/kuberouter/host"
	balancer "github.com/podwall/podwall/internal/proxy/ipvs/host"
)

// ErrRefused says that nothing was changed, because of the state of the node.
var ErrRefused = errors.New("refused, nothing was changed")

// watchKubeRouter is how long the firewall's chains are watched before they are
// removed, and after: whoever writes them in that time runs. kube-router's own
// period may be longer, so this is the last of several signs.
const watchKubeRouter = 3 * time.Second

// RemoveKubeRouter shows what kube-router's firewall left on this node, and removes
// it if it is told to. It runs beside the agent. An error that wraps ErrRefused
// means that nothing was changed.
func RemoveKubeRouter(ctx context.Context, how config.Removal, out io.Writer) error {
	options := kuberouter.Options{KeepBridge: how == config.RemovalNowBesideBridge}
	inv, err := inspect(ctx)
	if err != nil {
		return err
	}
	plan := kuberouter.Decide(inv, options)
	if how != config.RemovalPlan && !plan.Nothing() && len(plan.Refusals) == 0 {
		if inv, err = lookAgain(ctx, inv); err != nil {
			return err
		}
		plan = kuberouter.Decide(inv, options)
	}
	fmt.Fprint(out, plan.Text())
	switch {
	case len(plan.Refusals) > 0:
		return ErrRefused
	case how == config.RemovalPlan, plan.Nothing():
		return nil
	}
	if err := host.Remove(ctx, plan); err != nil {
		return err
	}
	fmt.Fprintln(out, "removed")
	return staysGone(ctx, plan)
}

func inspect(ctx context.Context) (kuberouter.Inventory, error) {
	inv, err := host.Look(ctx)
	if err != nil {
		return inv, err
	}
	if inv.IPVS, err = balancer.Others(); err != nil {
		return inv, err
	}
	if inv.NotEnforcing, err = datapath.NotEnforcing(ctx); err == nil && inv.NotEnforcing == "" {
		inv.NotEnforcing = notReady(ctx)
	}
	return inv, err
}

// lookAgain makes a second inventory after a while. If the chains have other names
// then, another program wrote them.
func lookAgain(ctx context.Context, before kuberouter.Inventory) (kuberouter.Inventory, error) {
	pause(ctx, watchKubeRouter)
	after, err := inspect(ctx)
	if err == nil && !slices.Equal(kuberouter.Names(before), kuberouter.Names(after)) {
		after.Running = append(after.Running, "its chains changed within "+watchKubeRouter.String())
	}
	return after, errors.Join(err, ctx.Err())
}

// staysGone waits whether somebody makes again what was removed, and says what is
// left.
func staysGone(ctx context.Context, removed kuberouter.Plan) error {
	pause(ctx, watchKubeRouter)
	inv, err := inspect(ctx)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	left := kuberouter.Decide(inv, kuberouter.Options{KeepBridge: true})
	switch {
	case len(left.Chains)+len(left.Jumps)+len(left.Tables) > 0:
		return errors.New("kube-router's chains are back, so it runs: stop it, then do this again")
	case len(left.Legacy) > 0:
		return fmt.Errorf("the chains in iptables-legacy are still there (%d tables): remove them as shown, then "+
			"do this again for the ipsets that they use", len(removed.Legacy))
	}
	return nil
}
