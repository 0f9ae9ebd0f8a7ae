// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/podwall/podwall/internal/cluster"
)

// placed is a source that first makes sure that this network namespace is the
// node's. The API server may be away at the start, so the question is asked
// until it is answered; objects are not delivered before.
type placed struct {
	Source
	node      string
	addresses func(ctx context.Context) ([]netip.Addr, error)
	found     func([]netip.Addr) // is told them
	log       *slog.Logger
}

// askAgain is the wait between two questions, askTimeout that for an answer.
const (
	askAgain   = time.Second
	askTimeout = 10 * time.Second
)

func (p *placed) ask(ctx context.Context) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return p.addresses(ctx)
}

// Run checks the place, then runs the source.
func (p *placed) Run(ctx context.Context, store *cluster.Store) error {
	for first := true; ctx.Err() == nil; first = false {
		addresses, err := p.ask(ctx)
		switch {
		case err == nil:
			if err := checkAddresses(p.node, addresses); err != nil {
				return err
			}
			p.found(addresses)
			return p.Source.Run(ctx, store)
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
			p.log.Warn("cannot check that this is the node's network namespace", "node", p.node, "err", err)
			return p.Source.Run(ctx, store)
		case first:
			p.log.Warn("asking the API server for this node failed, trying on", "node", p.node, "err", err)
		}
		pause(ctx, askAgain)
	}
	return nil
}
