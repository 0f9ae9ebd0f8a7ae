// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"bufio"
	"cmp"
	"context"
	"errors"
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
		return sample{}, s.failed(err)
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

// stuckError is a run of ab that ended because nothing came for 30 seconds, ab's own
// limit. Connections are those that were open then.
type stuckError struct {
	error
	connections []string
}

// failed says why ab failed. Of a run that got stuck it says where, for the kernel
// remembers the connections.
func (s *stage) failed(err error) error {
	err = fmt.Errorf("running ab: %w", err)
	if !timedOut(err.Error()) {
		return err
	}
	list, listErr := s.openConnections()
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	return stuckError{err, list}
}

// timedOut reports whether ab said APR_TIMEUP, 70007.
func timedOut(text string) bool { return strings.Contains(text, "(70007)") }

// patient asks as ask does, and once more where a run got stuck: a measurement of hours
// must not end with one lost connection. The report names it.
func (s *stage) patient(ctx context.Context, name string, requests, concurrency int) (sample, error) {
	got, err := s.ask(ctx, requests, concurrency)
	var stuck stuckError
	if !errors.As(err, &stuck) {
		return got, err
	}
	s.remark(fmt.Sprintf("With %q a run of ab got no answer for 30 s and was repeated. Connections open then: %s.",
		name, cmp.Or(strings.Join(stuck.connections, "; "), "none")))
	return s.ask(ctx, requests, concurrency)
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
