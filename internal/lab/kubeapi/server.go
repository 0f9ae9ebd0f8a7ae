// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubeapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
)

const (
	readyTimeout = 60 * time.Second
	readyPeriod  = 5 * time.Millisecond
	stopTimeout  = 30 * time.Second
)

// Server is a running API server. Its fields do not change.
type Server struct {
	// Kubeconfig is the path of a kubeconfig with all rights.
	Kubeconfig string
	// URL is where the API is served, as in https://127.0.0.1:6443.
	URL string
	// Log is the path of the API server's log.
	Log string

	netns    *netns.NS // nil for the caller's own
	process  *os.Process
	lifeline io.Closer     // the process ends when this closes
	ended    chan struct{} // closed when the process is gone
}

// Launch starts a server with its state in dir, which must exist, and returns
// when it is ready, after a minute at most. It is for callers without a
// testing.TB, and for a second start on the same state: the same dir gives the
// same objects and the same authority. The caller must call Stop. The error is
// ErrNotBuilt if there is no program.
func Launch(ctx context.Context, dir string, o Options) (*Server, error) {
	program, err := o.program()
	if err != nil {
		return nil, err
	}
	// The file of an earlier start would look like a server that is ready.
	if err := os.Remove(filepath.Join(dir, "ready")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the ready file of an earlier start: %w", err)
	}
	s := &Server{
		Kubeconfig: filepath.Join(dir, "admin.kubeconfig"),
		Log:        filepath.Join(dir, "kubeapi.log"),
		netns:      o.Netns,
		ended:      make(chan struct{}),
	}
	if err := s.start(program, o.args(dir)); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	if err := s.waitReady(ctx, filepath.Join(dir, "ready")); err != nil {
		err = fmt.Errorf("waiting for the API server: %w\n%s", err, tail(s.Log))
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (o Options) program() (string, error) {
	if o.Program != "" {
		return o.Program, nil
	}
	return Program()
}

func (o Options) args(dir string) []string {
	bind := o.Bind
	if !bind.IsValid() {
		bind = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	args := []string{
		"--dir=" + dir,
		"--bind=" + bind.String(),
		"--port=" + strconv.Itoa(o.Port),
		"--profile=" + string(cmp.Or(o.Profile, Min)),
		"--lifeline",
	}
	for _, name := range o.Names {
		args = append(args, "--san="+name.String())
	}
	for _, user := range o.Users {
		args = append(args, "--user="+user)
	}
	return append(append(args, "--"), o.Flags...)
}

// start starts the process inside the namespace. The process lives as long as
// the other end of its standard input is open, and the kernel closes that end
// when this program dies, however it dies. (The kernel's signal on the death
// of a parent would not do: it comes when the thread ends that started the
// process.)
func (s *Server) start(program string, args []string) error {
	log, err := os.Create(s.Log)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own copy
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.lifeline, err = cmd.StdinPipe(); err != nil {
		return err
	}
	begin := cmd.Start
	if s.netns != nil {
		begin = func() error { return s.netns.Do(cmd.Start) }
	}
	if err := begin(); err != nil {
		return errors.Join(err, s.lifeline.Close())
	}
	s.process = cmd.Process
	go func() {
		_ = cmd.Wait() // how it ended says nothing: it is ended from outside
		close(s.ended)
	}()
	return nil
}

func (s *Server) waitReady(ctx context.Context, file string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPeriod)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(file)
		if err == nil {
			s.URL = strings.TrimSpace(string(text))
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return errors.New("the process ended before it was ready")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Pid returns the process number of the server.
func (s *Server) Pid() int { return s.process.Pid }

// Stop ends the process and waits until it is gone. The state stays in the
// directory. A second call does nothing.
func (s *Server) Stop() error {
	// The error says only that an earlier Stop or the end of the process
	// closed it.
	_ = s.lifeline.Close()
	select {
	case <-s.ended:
		return nil
	case <-time.After(stopTimeout):
	}
	err := fmt.Errorf("process %d did not end with its lifeline, killing it", s.Pid())
	err = errors.Join(err, s.process.Kill())
	<-s.ended
	return err
}

// tail returns the last lines of a log file, for an error message.
func tail(path string) string {
	const lines = 20
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
