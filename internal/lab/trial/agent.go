// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/podwall/podwall/internal/lab"
)

const (
	statusURL = "http://127.0.0.1:20244/statusz"
	// patience is how long an agent may take to enforce a change. It is long
	// since the machine may be busy; nobody waits for it when all is well.
	patience = 30 * time.Second
	// glance is the wait between two looks at an agent's status.
	glance = 2 * time.Millisecond
)

// agent is a podwall-agent process inside a node.
type agent struct {
	cmd    *exec.Cmd
	log    string // file name
	client *http.Client
	ended  chan struct{}
	err    error // why it ended; valid after ended is closed
}

// startAgent starts the program in the node's namespace. The kernel kills it
// when this process ends.
func startAgent(at *lab.Endpoint, program, log string, args []string) (*agent, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("making the agent's log: %w", err)
	}
	defer out.Close() // the process has its own descriptor
	a := &agent{cmd: exec.Command(program, args...), log: log, ended: make(chan struct{})}
	a.cmd.Stdout, a.cmd.Stderr = out, out
	a.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return at.NS.Dial(ctx, network, addr)
		},
	}}
	if err := at.NS.Start(a.cmd); err != nil {
		return nil, fmt.Errorf("starting the agent: %w", err)
	}
	go func() {
		a.err = a.cmd.Wait()
		close(a.ended)
	}()
	return a, nil
}

// status is the part of the agent's status page that a trial needs.
type status struct {
	SourceID string   `json:"sourceID"`
	Ready    bool     `json:"ready"`
	NotReady []string `json:"notReady"`
}

func (a *agent) status(ctx context.Context) (s status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, statusURL, nil)
	if err != nil {
		return s, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return s, fmt.Errorf("asking for the status: %w", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("reading the status: %w", err)
	}
	return s, nil
}

// await returns when the agent enforces the content with that digest.
func (a *agent) await(ctx context.Context, digest string) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s, err := a.status(limit)
		if err == nil && s.Ready && s.SourceID == digest {
			return nil
		}
		select {
		case <-a.ended:
			return fmt.Errorf("it ended: %w\n%s", a.reason(), a.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			return fmt.Errorf("not after %s: %s\n%s", patience, s.why(err, digest), a.tail())
		case <-time.After(glance):
		}
	}
}

func (s status) why(err error, digest string) string {
	switch {
	case err != nil:
		return err.Error()
	case !s.Ready:
		return strings.Join(s.NotReady, "; ")
	}
	return fmt.Sprintf("it enforces %.12s, not %.12s", s.SourceID, digest)
}

func (a *agent) reason() error {
	if a.err == nil {
		return errors.New("without an error")
	}
	return a.err
}

// terminate asks the process to end.
func (a *agent) terminate() {
	a.client.CloseIdleConnections()
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
}

// wait returns when the process has ended; one that does not want to is killed.
func (a *agent) wait() error {
	select {
	case <-a.ended:
	case <-time.After(patience):
		_ = a.cmd.Process.Kill() // it may have ended just now
		<-a.ended
		return fmt.Errorf("ending the agent: it did not end by itself\n%s", a.tail())
	}
	if a.err != nil {
		return fmt.Errorf("ending the agent: %w\n%s", a.err, a.tail())
	}
	return nil
}

// tail returns the last lines of the log.
func (a *agent) tail() string {
	const lines = 20
	text, err := os.ReadFile(a.log)
	if err != nil {
		return err.Error()
	}
	list := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return "\t" + string(bytes.Join(list[max(0, len(list)-lines):], []byte("\n\t")))
}
