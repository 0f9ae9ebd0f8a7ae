// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/gate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keeper is an agent that answers what the test says.
type keeper struct {
	mu       sync.Mutex
	pods     map[string]gate.Pod
	off      int
	announce func(ctx context.Context, p gate.Pod) error
}

func (k *keeper) Announce(ctx context.Context, p gate.Pod) error {
	k.mu.Lock()
	k.pods[p.Sandbox] = p
	k.mu.Unlock()
	if k.announce == nil {
		return nil
	}
	return k.announce(ctx, p)
}

func (k *keeper) Withdraw(sandbox string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, sandbox)
}

func (k *keeper) Announced() []gate.Known {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []gate.Known
	for _, p := range k.pods {
		list = append(list, gate.Known{Pod: p, State: gate.Enforced})
	}
	slices.SortFunc(list, func(a, b gate.Known) int { return strings.Compare(a.Pod.Sandbox, b.Pod.Sandbox) })
	return list
}

func (k *keeper) Off() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.off++
}

// until waits for the end of ctx, as an agent does that does not know a pod.
func until(ctx context.Context, _ gate.Pod) error {
	<-ctx.Done()
	return fmt.Errorf("%w: not in this test", gate.ErrUnknown)
}

// socket returns a path that is short enough.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a directory for temporary files
	return filepath.Join(dir, "sub", "gate.sock")
}

// serve runs a server until stop is called, or the test ends.
func serve(t *testing.T, path string, k *keeper) (stop func()) {
	t.Helper()
	if k.pods == nil {
		k.pods = map[string]gate.Pod{}
	}
	return run(t, path, &gate.Server{Keeper: k, Log: slog.New(slog.DiscardHandler), Owner: uint32(os.Getuid())})
}

// run is serve for a server that the test made.
func run(t *testing.T, path string, s *gate.Server) (stop func()) {
	t.Helper()
	if err := s.Listen(path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		s.Run(ctx)
		close(done)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func web() gate.Pod {
	return gate.Pod{Sandbox: "s1", Namespace: "shop", Name: "web", UID: "u", Network: "pods", Netns: "/run/netns/x",
		Links: []string{"veth1"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
}

func TestWhatIsAnnouncedArrivesWhole(t *testing.T) {
	path, k := socket(t), &keeper{}
	serve(t, path, k)
	c := gate.Client{Socket: path}
	reply, err := c.Add(within(t, time.Minute), web())
	if err != nil || reply.State != gate.Enforced {
		t.Fatalf("reply %+v, %v", reply, err)
	}
	list, err := c.List(within(t, time.Minute))
	if err != nil || len(list) != 1 {
		t.Fatalf("list %v, %v", list, err)
	}
	if diff := cmp.Diff(web(), list[0].Pod, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	if r, err := c.Check(within(t, time.Minute), "s1"); err != nil || r.State != gate.Enforced {
		t.Errorf("check: %+v, %v", r, err)
	}
	if err := c.Del(within(t, time.Minute), "s1"); err != nil {
		t.Error(err)
	}
	if r, err := c.Check(within(t, time.Minute), "s1"); err != nil || r.State != gate.Unknown {
		t.Errorf("check after del: %+v, %v", r, err)
	}
	if err := c.Off(within(t, time.Minute)); err != nil || k.off != 1 {
		t.Errorf("the gate is uninstalled: %v, the agent heard it %d times", err, k.off)
	}
	if err := c.Del(within(t, time.Minute), "s1"); err != nil {
		t.Errorf("a second del: %v", err)
	}
}

func TestAnswersToAnAnnouncement(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want gate.State
	}{
		{"the kernel has it", nil, gate.Enforced},
		{"nobody knows it", fmt.Errorf("%w: really", gate.ErrUnknown), gate.Unknown},
		{"the kernel has it not", errors.New("the kernel says no"), gate.Isolated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := socket(t)
			serve(t, path, &keeper{announce: func(context.Context, gate.Pod) error { return tt.err }})
			reply, err := gate.Client{Socket: path}.Add(within(t, time.Minute), web())
			if err != nil || reply.State != tt.want || tt.err != nil && reply.Text != tt.err.Error() {
				t.Errorf("reply %+v, %v, want %q with the error's text", reply, err, tt.want)
			}
		})
	}
}

func TestTheAnswerComesBeforeTheCallersPatienceEnds(t *testing.T) {
	path := socket(t)
	serve(t, path, &keeper{announce: until})
	var reply gate.Reply
	err := gate.ErrNoAnswer
	for try := 0; try < 5 && errors.Is(err, gate.ErrNoAnswer); try++ { // a busy machine may lose the answer's 50 ms
		reply, err = gate.Client{Socket: path}.Add(within(t, 200*time.Millisecond), web())
	}
	if err != nil || reply.State != gate.Unknown || !strings.Contains(reply.Text, "not in this test") {
		t.Errorf("reply %+v, %v, want the agent's own reason", reply, err)
	}
	if reply.TookMicros < 100_000 {
		t.Errorf("it took %d µs, less than it was allowed to", reply.TookMicros)
	}
}

func TestAClientThatHangsUpEndsTheWait(t *testing.T) {
	path, ended := socket(t), make(chan struct{})
	serve(t, path, &keeper{announce: func(ctx context.Context, _ gate.Pod) error {
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(`{"version":1,"op":"add","waitMillis":60000,"pod":{"sandbox":"s","namespace":"n","name":"p","ips":["10.0.0.1"]}}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestAnAnnouncementOutlivesARestartOfTheAgent(t *testing.T) {
	path, begun := socket(t), make(chan struct{})
	stop := serve(t, path, &keeper{announce: func(ctx context.Context, _ gate.Pod) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}})
	type result struct {
		gate.Reply
		error
	}
	done := make(chan result, 1)
	ctx := within(t, time.Minute)
	go func() {
		r, err := gate.Client{Socket: path}.Add(ctx, web())
		done <- result{r, err}
	}()
	<-begun
	stop()
	serve(t, path, &keeper{})
	if r := <-done; r.error != nil || r.State != gate.Enforced {
		t.Errorf("reply %+v, want the next agent's", r)
	}
}

func TestWithoutAnAgentTheCallerWaitsAsLongAsItSaid(t *testing.T) {
	c := gate.Client{Socket: socket(t)}
	start := time.Now()
	_, err := c.Add(within(t, 150*time.Millisecond), web())
	if took := time.Since(start); !errors.Is(err, gate.ErrNoAnswer) || took < 150*time.Millisecond {
		t.Errorf("error %v after %s, want no answer after 150ms", err, took)
	}
	if err := c.Del(within(t, time.Minute), "s1"); !errors.Is(err, gate.ErrNoAnswer) {
		t.Errorf("del: %v, want no answer at once", err)
	}
}

func TestOnlyTheOwnerMayAsk(t *testing.T) {
	path := socket(t)
	s := &gate.Server{Keeper: &keeper{}, Log: slog.New(slog.DiscardHandler), Owner: uint32(os.Getuid()) + 1}
	var answers []gate.Answer
	s.Answered = func(a gate.Answer, _ time.Duration) { answers = append(answers, a) }
	if err := s.Listen(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		s.Run(ctx)
		close(done)
	}()
	_, err = (gate.Client{Socket: path}).List(t.Context())
	if err == nil || !strings.Contains(err.Error(), "refusing user") {
		t.Errorf("error %v, want a refusal", err)
	}
	cancel()
	<-done
	if !slices.Equal(answers, []gate.Answer{gate.AnsweredRefused}) {
		t.Errorf("answered were %v", answers)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	path := socket(t)
	serve(t, path, &keeper{})
	pod := func(rest string) string {
		return `{"version":1,"op":"add","pod":{"sandbox":"s","namespace":"n","name":"p",` + rest + `}}`
	}
	tests := []struct{ name, request, want string }{
		{"another version", `{"version":2,"op":"list"}`, "version: 2 is not supported"},
		{"no version", `{"op":"list"}`, "version: 0"},
		{"an unknown operation", `{"version":1,"op":"open"}`, `op: "open"`},
		{"no JSON", `hello`, "invalid character"},
		{"too long to wait", `{"version":1,"op":"add","waitMillis":60001,"pod":{}}`, "waitMillis"},
		{"no sandbox", `{"version":1,"op":"del"}`, "pod.sandbox: is missing"},
		{"no address", pod(`"ips":[]`), "pod.ips: 0 addresses"},
		{"an address that is none", pod(`"ips":["10.0.0.256"]`), "10.0.0.256"},
		{"an address of a link", pod(`"ips":["fe80::1%eth0"]`), "no address of a pod"},
		{"the node's own address", pod(`"ips":["127.0.0.1"]`), "no address of a pod"},
		{"every address", pod(`"ips":["0.0.0.0"]`), "no address of a pod"},
		{"a name without end", `{"version":1,"op":"del","pod":{"sandbox":"` + strings.Repeat("x", 600) + `"}}`, "longer than 512"},
		{"a request without end", strings.Repeat("x", gate.MaxMessage+1), "longer than 65536"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ask(t, path, tt.request); !strings.Contains(got, `"error":`) || !strings.Contains(strings.ReplaceAll(got, `\"`, `"`), tt.want) {
				t.Errorf("answer %s, want an error with %q", got, tt.want)
			}
		})
	}
}

// ask sends a line and returns the answer.
func ask(t *testing.T, path, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(request + "\n")) // the server may have hung up: too long
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	return line
}

func TestSocketsOfOthersAreLeftAlone(t *testing.T) {
	path := socket(t)
	serve(t, path, &keeper{})
	second := &gate.Server{Keeper: &keeper{}, Log: slog.New(slog.DiscardHandler)}
	if err := second.Listen(path); err == nil || !strings.Contains(err.Error(), "another agent answers") {
		t.Errorf("error %v, want one about the other agent", err)
	}
	if err := second.Listen(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("error %v, want one about the directory", err)
	}
}

func TestASocketOfADeadAgentIsReplaced(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, path, &keeper{})
	if _, err := (gate.Client{Socket: path}).List(t.Context()); err != nil {
		t.Error(err)
	}
}

// What became of each pod is told to those who count, once.
func TestAnswersAreTold(t *testing.T) {
	path := socket(t)
	told := make(chan gate.Answer, 10)
	run(t, path, &gate.Server{Keeper: &keeper{pods: map[string]gate.Pod{}}, Log: slog.New(slog.DiscardHandler), Owner: uint32(os.Getuid()),
		Answered: func(a gate.Answer, _ time.Duration) { told <- a }})
	c := gate.Client{Socket: path}
	if _, err := c.Add(within(t, time.Minute), web()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.List(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != gate.AnsweredEnforced || len(told) > 0 {
		t.Errorf("told were %s and %d more", got, len(told))
	}
}
