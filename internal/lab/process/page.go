// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Agent is where an agent answers in the namespace of its node.
const Agent = "http://127.0.0.1:20244"

// client asks from inside a namespace; from where the caller is if there is none.
func client(ns *netns.NS) *http.Client {
	transport := &http.Transport{}
	if ns != nil {
		transport.DialContext = ns.Dial
	}
	return &http.Client{Timeout: Patience, Transport: transport}
}

// Page asks an agent for one of its pages, from inside its namespace, and reads
// it as JSON into a value unless that is nil. Another status than 200 is an error.
func (p *Process) Page(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, Agent+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.pages.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s for %s: %w", p.Name(), path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s for %s: status %s", p.Name(), path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// Ready returns when all of the agents enforce.
func Ready(ctx context.Context, agents ...*Process) error {
	for _, p := range agents {
		err := Until(ctx, p.Name()+" to be ready", func(ctx context.Context) (bool, error) {
			return p.Page(ctx, "/readyz", nil) == nil, nil
		}, agents...)
		if err != nil {
			return err
		}
	}
	return nil
}
