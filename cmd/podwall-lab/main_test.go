// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/command"
)

func TestAnAnswerThatNobodyReadsEndsTheRun(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ended := false
	a := answer{w, func() { ended = true }}
	if _, err := a.Write([]byte("read")); err != nil || ended {
		t.Errorf("while somebody reads: %v, ended %t", err, ended)
	}
	_ = r.Close() // nothing was lost
	if _, err := a.Write([]byte("unread")); err == nil || !ended {
		t.Errorf("when nobody reads: %v, ended %t", err, ended)
	}
}

// asLab makes the test's program be podwall-lab.
const asLab = "PODWALL_TEST_AS_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(asLab) != "" {
		main()
	}
	os.Exit(m.Run())
}

// Ctrl-C ends a command that waits for its input, with the exit status of shells.
func TestCtrlCEndsACommandThatReads(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "ruleset", "-f", "-")
	cmd.Env = append(os.Environ(), asLab+"=yes")
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The pipe holds less than this: once all of it is written, the program reads, and it
	// handles signals before.
	if _, err := in.Write(bytes.Repeat([]byte("#\n"), 1<<17)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is read below
	if status := cmd.ProcessState.ExitCode(); status != command.StatusInterrupted ||
		!strings.Contains(said.String(), "reading the standard input") {
		t.Errorf("exit status %d, %s", status, said.String())
	}
}
