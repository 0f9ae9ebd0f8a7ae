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
// connections. It begins when the agent has done what its start asks for, with these connections there.
func (w *world) flood(a *agent, each time.Duration) figures {
	w.t.Helper()
	allowed := w.send(peer, 5*time.Millisecond, func(i int) int { return 1 + i%60000 }) // a few thousand connections a second
	w.idle(a)
	denied := w.send(stranger, 0, func(int) int { return 9 })
	cpu, began := processTime(w.t, a.PID()), time.Now()
	time.Sleep(each)
	used, elapsed := processTime(w.t, a.PID())-cpu, time.Since(began)
	rate, ns := denied.end(w.t)
	_, connection := allowed.end(w.t)
	return figures{rate: rate, denied: ns, allowed: connection, agent: 100 * used.Seconds() / elapsed.Seconds()}
}

// idle waits until the agent uses less than a fiftieth of a core for a second.
func (w *world) idle(a *agent) {
	w.t.Helper()
	last := processTime(w.t, a.PID())
	await(w.t, "an idle agent", func() bool {
		time.Sleep(time.Second)
		now := processTime(w.t, a.PID())
		used := now - last
		last = now
		return used < 20*time.Millisecond
	})
}

// stream is a thread that sends packets to the victim.
type stream struct {
	stop  atomic.Bool
	ended chan error
	began time.Time
	sent  int
	spent time.Duration // by the thread
}

// send sends packets from a pod until the stream is ended: a hundred, a pause, and so on. Numbered from 0, each
// goes to the port that is given.
func (w *world) send(from string, pause time.Duration, port func(int) int) *stream {
	s := &stream{ended: make(chan error, 1), began: time.Now()}
	ns, to := w.ns(from), &unix.SockaddrInet4{Addr: addressOf(victim, false).As4()}
	go func() {
		s.ended <- ns.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for !s.stop.Load() {
				begin := threadTime()
				for range 100 {
					to.Port = port(s.sent)
					_ = unix.Sendto(fd, []byte("packet"), 0, to) // dropped, or nobody listens: some kernels say so
					s.sent++
				}
				s.spent += threadTime() - begin
				time.Sleep(pause)
			}
			return nil
		})
	}()
	return s
}

// end ends the stream: packets a second, and the thread's nanoseconds for each.
func (s *stream) end(t *testing.T) (rate, each float64) {
	t.Helper()
	s.stop.Store(true)
	check(t, <-s.ended)
	return float64(s.sent) / time.Since(s.began).Seconds(), float64(s.spent.Nanoseconds()) / float64(s.sent)
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
