// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package meter measures what packets and requests cost: the CPU time of one
// thread that does all the work. The thread sends from one network namespace
// and receives in another, and the kernel carries each packet all the way, over
// both nodes, in that thread's own time, so nothing is missed and nothing of
// other programs is counted.
//
// It runs in a process of its own, see Serve: there the Go runtime has nothing
// else to do, no garbage is collected, and the thread stays on one CPU at real
// time priority where that is allowed. Package packets says what is measured
// and compares; this package knows neither agents nor policies.
package meter

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
)

// Kind is what is measured.
type Kind string

// The kinds. All but Prime answer with CPU time for each unit of work.
const (
	// Established is a packet of a flow that both ends have spoken on; it ends at
	// the receiver's socket filter.
	Established Kind = "established"
	// First is the first packet of a flow: every packet has another source port.
	First Kind = "first"
	// Unanswered is a packet of one flow that never gets an answer, sent whether
	// it arrives or not.
	Unanswered Kind = "unanswered"
	// Connection is a request on a connection of its own: connect, 100 bytes
	// there, 650 back, close. Client, server and both nodes are counted.
	Connection Kind = "connection"
	// Keepalive is a request of the same size on a connection that stays.
	Keepalive Kind = "keepalive"
	// Stream is a KiB of a long TCP stream, sent in blocks of 64 KiB.
	Stream Kind = "stream"
)

// Request asks for one measurement.
type Request struct {
	Kind Kind `json:"kind"`
	// From and To are the network namespaces of client and server, as files that
	// the meter can open.
	From string `json:"from"`
	To   string `json:"to"`
	// Server is the address and port that is called, or only where the server listens if there are Fronts.
	Server netip.AddrPort `json:"server"`
	// Fronts are what is called instead, as a Service that leads to the server: each flow or connection calls
	// the next one.
	Fronts []netip.AddrPort `json:"fronts,omitempty"`
	// N is the units of work in a batch, Times the number of batches.
	N     int `json:"n"`
	Times int `json:"times"`
}

// called returns what the client calls, one after the other.
func (r Request) called() []*addr {
	fronts := r.Fronts
	if len(fronts) == 0 {
		fronts = []netip.AddrPort{r.Server}
	}
	list := make([]*addr, len(fronts))
	for i, f := range fronts {
		list[i] = newAddr(f)
	}
	return list
}

// Answer is what a measurement found.
type Answer struct {
	// Nanoseconds are CPU time for each unit of work, one for each batch.
	Nanoseconds []float64 `json:"nanoseconds,omitempty"`
	// RealTime is false where real time priority is not allowed: other work on
	// the same CPU then disturbs more.
	RealTime bool   `json:"realTime"`
	Error    string `json:"error,omitempty"`
}

// Serve answers requests, one JSON document a line, until in ends. It is the
// main function of the meter's process, and changes how that is scheduled.
func Serve(in io.Reader, out io.Writer) error {
	runtime.LockOSThread() // never unlocked: the thread ends with the process
	debug.SetGCPercent(-1)
	realTime, err := settle()
	if err != nil {
		return err
	}
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r Request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		a := Answer{RealTime: realTime}
		if a.Nanoseconds, err = measure(r); err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return fmt.Errorf("writing an answer: %w", err)
		}
	}
}

// Process is a meter in a process of its own. It is used by one goroutine.
type Process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	// realTime is what the last answer said.
	realTime bool
}

// Start starts the process: a command that calls Serve with its standard input
// and output. The kernel kills it when this process ends. The caller must Close
// it.
func Start(command []string) (*Process, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	// Signals with which the runtime preempts goroutines would interrupt calls
	// that wait, such as the first one to a neighbour that is not known yet.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the meter: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the meter: %w", err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the meter: %w", err)
	}
	return &Process{cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out))}, nil
}

// Measure returns CPU nanoseconds for each unit of work, one value a batch.
func (p *Process) Measure(r Request) ([]float64, error) {
	if err := json.NewEncoder(p.in).Encode(r); err != nil {
		return nil, fmt.Errorf("asking the meter: %w", err)
	}
	var a Answer
	if err := p.out.Decode(&a); err != nil {
		return nil, fmt.Errorf("reading the meter: %w", err)
	}
	p.realTime = a.RealTime
	if a.Error != "" {
		return nil, fmt.Errorf("measuring %s at %s: %s", r.Kind, r.Server, a.Error)
	}
	return a.Nanoseconds, nil
}

// RealTime reports whether the last measurement had real time priority.
func (p *Process) RealTime() bool { return p.realTime }

// Close ends the process.
func (p *Process) Close() error {
	if err := errors.Join(p.in.Close(), p.cmd.Wait()); err != nil {
		return fmt.Errorf("ending the meter: %w", err)
	}
	return nil
}
