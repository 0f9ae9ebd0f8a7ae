// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubeapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// readyTimeout is how long a server may take to be ready.
const readyTimeout = 5 * time.Minute

// Server is a running API server. Its fields do not change.
type Server struct {
	// Kubeconfig is the path of a kubeconfig with all rights.
	Kubeconfig string
	// URL is where the API is served, as in https://127.0.0.1:6443.
	URL string
	// Log is the path of the API server's log.
	Log string

	netns   *netns.NS // nil for the caller's own
	process *process.Process
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
	s := &Server{
		Kubeconfig: filepath.Join(dir, "admin.kubeconfig"),
		Log:        filepath.Join(dir, "kubeapi.log"),
		netns:      o.Netns,
	}
	ready := filepath.Join(dir, "ready")
	// The file of an earlier start would look like a server that is ready.
	for _, name := range []string{ready, s.Log} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("removing what an earlier start left: %w", err)
		}
	}
	if err := s.start(program, o.args(dir)); err != nil {
		return nil, err
	}
	if err := s.waitReady(ctx, ready); err != nil {
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
func (s *Server) start(program string, args []string) (err error) {
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{} // no such signal
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	s.process, err = process.Start(cmd, process.Options{Name: "the API server", Log: s.Log, NS: s.netns,
		Ask: lifeline.Close})
	return err
}

func (s *Server) waitReady(ctx context.Context, file string) error {
	w := process.Wait{For: "the API server", Limit: readyTimeout, Pause: 5 * time.Millisecond}
	return w.Until(ctx, func(context.Context) (bool, error) {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		s.URL = strings.TrimSpace(string(text))
		return err == nil, err
	}, s.process)
}

// Pid returns the process number of the server.
func (s *Server) Pid() int { return s.process.PID() }

// Stop ends the process and waits until it is gone. The state stays in the
// directory. A second call does nothing.
func (s *Server) Stop() error { return s.process.Stop() }
