// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/podwall/podwall/internal/lab/netns"
)

// What an error shows of a log: the last lines, and of the file no more than the
// last bytes, since a program may write much, and in one line.
const (
	lastLines = 20
	lastBytes = 64 << 10
)

// Log is all that the process has written so far.
func (p *Process) Log() ([]byte, error) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return nil, fmt.Errorf("reading the log of %s: %w", p.Name(), err)
	}
	return text, nil
}

// Tail is the last lines that the process has written, for an error.
func (p *Process) Tail() string { return Tail(p.log) }

// Tail is the last lines of a log, for an error.
func Tail(file string) string {
	text, err := end(file)
	if err != nil {
		return err.Error()
	}
	return last(text)
}

// end reads the last bytes of a file.
func end(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() // read only
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-lastBytes)
	return io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
}

// last returns the last lines, indented by blanks: commands print no control characters.
func last(text []byte) string {
	const indent = "    "
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return indent + "nothing"
	}
	all := bytes.Split(text, []byte("\n"))
	return indent + string(bytes.Join(all[max(0, len(all)-lastLines):], []byte("\n"+indent)))
}

func tails(list []*Process) string {
	text := ""
	for _, p := range list {
		text += "\n" + p.Name() + " said last:\n" + p.Tail()
	}
	return text
}

// Run runs a program in a namespace to its end. What it says on its standard
// error, if the caller does not take that, is in the error.
func Run(ns *netns.NS, cmd *exec.Cmd) error {
	var said bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	if err := ns.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, last(said.Bytes()))
	}
	return nil
}
