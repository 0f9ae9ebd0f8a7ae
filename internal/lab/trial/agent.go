// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/process"
)

// agent is a podwall-agent process inside a node.
type agent struct{ *process.Process }

// startAgent starts the program in the node's namespace. The kernel kills it
// when this process ends.
func startAgent(at *lab.Endpoint, program, log string, args []string) (*agent, error) {
	p, err := process.Start(exec.Command(program, args...), process.Options{Name: "the agent", Log: log, NS: at.NS})
	if err != nil {
		return nil, err
	}
	return &agent{p}, nil
}

// status is the part of the agent's status page that a trial needs.
type status struct {
	SourceID string   `json:"sourceID"`
	Ready    bool     `json:"ready"`
	NotReady []string `json:"notReady"`
	Services *struct {
		SourceID string `json:"sourceID"`
	} `json:"services"`
}

// await returns when the agent enforces the content with that digest.
func (a *agent) await(ctx context.Context, digest string) error {
	var why string
	w := process.Wait{For: "it to enforce the manifests", Why: func() string { return why }}
	return w.Until(ctx, func(ctx context.Context) (bool, error) {
		var s status
		err := a.Page(ctx, "/statusz", &s)
		why = s.why(err, digest)
		return why == "", nil
	}, a.Process)
}

// why says why the agent does not enforce the content yet; empty if it does.
func (s status) why(err error, digest string) string {
	switch {
	case err != nil:
		return err.Error()
	case !s.Ready:
		return "not ready: " + strings.Join(s.NotReady, "; ")
	case s.SourceID != digest:
		return fmt.Sprintf("it enforces %.12s, not %.12s", s.SourceID, digest)
	case s.Services != nil && s.Services.SourceID != digest:
		return fmt.Sprintf("it serves %.12s, not %.12s", s.Services.SourceID, digest)
	}
	return ""
}

// stop ends the agent. One that does not end, or badly, is an error.
func (a *agent) stop() error {
	err := a.Stop()
	if err == nil {
		err = a.Err()
	}
	if err != nil {
		return fmt.Errorf("ending the agent: %w\n%s", err, a.Tail())
	}
	return nil
}
