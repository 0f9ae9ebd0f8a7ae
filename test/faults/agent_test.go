// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/launch"
	"github.com/podwall/podwall/internal/observe"
)

// agent is a podwall-agent process in node1.
type agent struct {
	*launch.Process
	t *testing.T
}

// start starts a program in a namespace. It ends with the test.
func start(t *testing.T, ns *netns.NS, program string, args ...string) *agent {
	t.Helper()
	return &agent{launch.Start(t, ns, "agent", patience, command(program, args...)), t}
}

func command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "NODE_NAME=node1")
	return cmd
}

// status reads the status page; ok is false if there is no answer.
func (a *agent) status() (s observe.Status, ok bool) {
	_, text := a.Get("/statusz")
	return s, json.Unmarshal([]byte(text), &s) == nil
}

// until waits for a status as long as the process lives.
func (a *agent) until(what string, holds func(observe.Status) bool) observe.Status {
	a.t.Helper()
	var last observe.Status
	a.Await("word "+what, func() (ok bool) {
		last, ok = a.status()
		return ok && holds(last)
	}, func() string { return fmt.Sprintf("not ready: %q, problems: %+v", last.NotReady, last.Problems) })
	return last
}

func (a *agent) ready() *agent {
	a.t.Helper()
	a.until("that it is ready", func(s observe.Status) bool { return s.Ready })
	return a
}

// failedPass is what the log says of a failed pass.
const failedPass = "enforcing failed"

// failures counts the failed passes in the log.
func (a *agent) failures() int {
	a.t.Helper()
	return strings.Count(a.Log(), failedPass)
}
