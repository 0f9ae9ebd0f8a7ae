// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/lab/process"
)

// sample is one run of ab.
type sample struct {
	requests int
	// perSecond is ab's own figure.
	perSecond float64
	// asking and serving are the CPU time of ab and of both nginx, and machine is
	// what every processor did in that time, whoever asked for it.
	asking, serving, machine time.Duration
}

// cpu and whole are CPU time for one request, in µs.
func (s sample) cpu() float64   { return micros(s.asking+s.serving) / float64(s.requests) }
func (s sample) whole() float64 { return micros(s.machine) / float64(s.requests) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// ask runs ab once.
func (s *stage) ask(ctx context.Context, requests, concurrency int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Limit+2*time.Minute) // it may be slow to end
	defer cancel()
	requests = max(requests, concurrency) // ab wants it so
	// -t sets the number of requests too, so -n comes after it.
	cmd := exec.CommandContext(ctx, s.AB, "-q", "-t", strconv.Itoa(int(s.Limit.Seconds())),
		"-n", strconv.Itoa(requests),
		"-c", strconv.Itoa(concurrency), "http://"+testedAddress+"/")
	var out strings.Builder
	cmd.Stdout = &out
	before, err := s.meters()
	if err != nil {
		return sample{}, err
	}
	if err := process.Run(s.client.NS, cmd); err != nil {
		return sample{}, fmt.Errorf("running ab: %w", err)
	}
	after, err := s.meters()
	if err != nil {
		return sample{}, err
	}
	got, err := readAB(out.String())
	got.asking = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	got.serving = after.serving - before.serving
	got.machine = max(after.machine-before.machine, tick) // a run that is too short has no ratio else
	return got, err
}

// readAB reads ab's report. A request that failed, or was answered with an
// error, makes all of it worthless.
func readAB(text string) (s sample, err error) {
	fields := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok {
			first, _, _ := strings.Cut(strings.TrimSpace(value), " ")
			fields[key] = first
		}
	}
	for _, bad := range []string{"Failed requests", "Write errors", "Non-2xx responses"} {
		if n, there := fields[bad]; there && n != "0" {
			return s, fmt.Errorf("reading ab's report: %s %s", n, strings.ToLower(bad))
		}
	}
	if s.requests, err = strconv.Atoi(fields["Complete requests"]); err != nil || s.requests == 0 {
		return s, fmt.Errorf("reading ab's report: no complete requests in %q", text)
	}
	if s.perSecond, err = strconv.ParseFloat(fields["Requests per second"], 64); err != nil {
		return s, fmt.Errorf("reading ab's report: no requests per second: %w", err)
	}
	return s, nil
}

// meters are read before and after a run of ab.
type meters struct{ serving, machine time.Duration }

func (s *stage) meters() (m meters, err error) {
	for _, p := range s.servers {
		t, err := p.CPU()
		if err != nil {
			return m, err
		}
		m.serving += t
	}
	m.machine, err = machineTime()
	return m, err
}
