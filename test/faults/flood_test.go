// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// The cost of denied packets with and without records: for the thread that sends them, for a thread that
// opens allowed connections at the same time, and for the agent. Settings take turns; the log has the
// figures. It fails only if the agent records more than the rate lets through.
func TestTheCostOfAFloodOfDenies(t *testing.T) {
	rounds, each := soak.Times(1, 8), time.Duration(soak.Times(300, 3000))*time.Millisecond
	w := newWorld(t, "routed")
	w.publish(usual()...)
	values := map[string][]float64{}
	for range rounds {
		for _, setting := range []struct {
			name string
			args []string
		}{{"off", nil}, {"on", []string{"--denied-flows-group=7"}}, {"off again", nil}} {
			a := w.enforced(w.start(setting.args...))
			f := w.flood(a, each)
			values[setting.name+": denied packets a second"] = append(values[setting.name+": denied packets a second"], f.rate)
			values[setting.name+": ns a denied packet"] = append(values[setting.name+": ns a denied packet"], f.denied)
			values[setting.name+": ns an allowed connection"] = append(values[setting.name+": ns an allowed connection"], f.allowed)
			values[setting.name+": agent, % of a core"] = append(values[setting.name+": agent, % of a core"], f.agent)
			if setting.args != nil {
				recorded := uint64(0)
				await(t, "a record", func() bool {
					_, sum := w.flows()
					recorded = sum.Recorded
					return recorded > 0
				})
				if most := uint64(each.Seconds()*25) + 80; recorded > most {
					t.Errorf("%d packets are recorded, want %d at most", recorded, most)
				}
			}
			a.Stop()
		}
	}
	for _, what := range []string{"denied packets a second", "ns a denied packet", "ns an allowed connection", "agent, % of a core"} {
		for _, name := range []string{"off", "on", "off again"} {
			list, base := values[name+": "+what], values["off: "+what]
			ratios := make([]float64, len(list))
			for i := range list {
				ratios[i] = list[i] / max(base[i], 0.001)
			}
			m, r := bench.Summarize(list), bench.Summarize(ratios)
			text := fmt.Sprintf("%-26s %-10s %10.1f (%.1f to %.1f)", what, name, m.Median, m.Low, m.High)
			if !strings.HasPrefix(what, "agent") { // which uses nothing without records
				text += fmt.Sprintf(", ratio %.3f (%.3f to %.3f)", r.Median, r.Low, r.High)
			}
			t.Log(text)
		}
	}
}

// figures of one flood.
type figures struct{ rate, denied, allowed, agent float64 }

// flood sends denied packets for so long, as fast as one thread can, while another thread opens allowed
// connections.
func (w *world) flood(a *agent, each time.Duration) (f figures) {
	w.t.Helper()
	var stop atomic.Bool
	sent, spent := 0, time.Duration(0)
	done := make(chan error, 1)
	go func() {
		done <- w.ns(stranger).Do(func() error {
			return sends(func(fd int) error {
				to := &unix.SockaddrInet4{Port: 9, Addr: addressOf(victim, false).As4()}
				begin := threadTime()
				for !stop.Load() {
					_ = unix.Sendto(fd, []byte("denied"), 0, to) // dropped on the way; some kernels say so
					sent++
				}
				spent = threadTime() - begin
				return nil
			})
		})
	}()
	cpu, began := processTime(w.t, a.PID()), time.Now()
	opened, took := 0, time.Duration(0)
	check(w.t, w.ns(peer).Do(func() error {
		return sends(func(fd int) error {
			to := &unix.SockaddrInet4{Addr: addressOf(victim, false).As4()}
			for time.Since(began) < each {
				begin := threadTime()
				for range 100 {
					to.Port = 1 + opened%60000
					if err := unix.Sendto(fd, []byte("allowed"), 0, to); err != nil && err != unix.ECONNREFUSED {
						return err
					}
					opened++
				}
				took += threadTime() - begin
				time.Sleep(5 * time.Millisecond) // a few thousand connections a second
			}
			return nil
		})
	}))
	elapsed := time.Since(began)
	used := processTime(w.t, a.PID()) - cpu
	stop.Store(true)
	check(w.t, <-done)
	return figures{rate: float64(sent) / elapsed.Seconds(), denied: float64(spent.Nanoseconds()) / float64(sent),
		allowed: float64(took.Nanoseconds()) / float64(opened), agent: 100 * used.Seconds() / elapsed.Seconds()}
}

// sends gives f a UDP socket of this thread's namespace.
func sends(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// threadTime is the time that this thread has run.
func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err) // every kernel has it
	}
	return time.Duration(now.Nano())
}

// processTime is the time that a process has run, in steps of ten milliseconds.
func processTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, i := range []int{11, 12} { // utime, stime
		n, err := strconv.Atoi(fields[i])
		check(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
