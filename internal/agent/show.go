// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/podwall/podwall/internal/agent/flows"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/observe"
)

// rulesetPage is the page of the rules in the kernel. It is for root only, at the socket of denied flows.
const rulesetPage = "/ruleset"

// ruled is a part of the agent that has tables in the kernel.
type ruled interface{ Ruleset(out io.Writer) error }

// pages returns what root may read of the agent in addition to denied flows.
func pages(o *observe.Observer, parts ...ruled) map[string]http.Handler {
	all := o.Pages()
	var one sync.Mutex // the tables of a large cluster take memory
	all[rulesetPage] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		one.Lock()
		defer one.Unlock()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, part := range parts {
			_ = part.Ruleset(w) // the client went away
		}
	})
	return all
}

// Show prints what the agent of this node knows, as cfg asks.
func Show(ctx context.Context, cfg config.Config, out io.Writer) error {
	path := map[config.Show]string{config.ShowStatus: "/statusz", config.ShowMetrics: "/metrics",
		config.ShowEnforced: "/enforced",
		config.ShowRuleset:  rulesetPage}[cfg.Show]
	if err := flows.Page(ctx, out, path); err != nil {
		return fmt.Errorf("%s: %w", cfg.Show, err)
	}
	return nil
}
