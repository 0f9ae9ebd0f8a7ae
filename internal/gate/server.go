// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers requests on a socket.
type Server struct {
	Keeper Keeper
	Log    *slog.Logger
	// Owner is the user who may ask; the zero value is root.
	Owner uint32
	// Answered receives the answer about each pod that was announced, and after how long.
	// May be nil; it is called by several goroutines.
	Answered func(a Answer, took time.Duration)

	listener *net.UnixListener
	made     string // the directory, if it was not there
}

// slots bounds the requests that are served at the same time; others wait in
// the kernel's queue.
const slots = 256

// Listen makes the socket, with mode 0600, and its directory. The socket of an agent
// that was killed is replaced.
func (s *Server) Listen(path string) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		s.made = dir
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the gate's directory: %w", err)
	}
	if err := removeDead(path); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("opening the gate's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("closing the gate's socket to others: %w", err), l.Close())
	}
	s.listener = l
	return nil
}

func removeDead(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at the gate's socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("opening the gate's socket: %s is there and is no socket; "+
			"remove it or name another with --gate-socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, ioTime); err == nil {
		return errors.Join(fmt.Errorf("opening the gate's socket: another agent answers on %s", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the socket of an earlier agent: %w", err)
	}
	return nil
}

// Run answers requests until ctx ends; then it removes the socket and returns
// when the last request is answered. Listen must have succeeded before.
func (s *Server) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() }) // Accept reports it
	defer stop()
	if s.made != "" {
		defer func() { _ = os.Remove(s.made) }() // unless another process uses it
	}
	var busy sync.WaitGroup
	defer busy.Wait()
	free := make(chan struct{}, slots)
	for {
		conn, err := s.listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close() // it asks the next agent
			}
			return
		case err != nil: // as when there are no file descriptors left
			s.Log.Error("accepting at the gate failed, retrying", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
			continue
		}
		free <- struct{}{}
		busy.Go(func() {
			defer func() { <-free }()
			s.serve(ctx, conn)
		})
	}
}

func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer func() { _ = conn.Close() }() // what was to be said has been
	start := time.Now()
	request, err := receive(conn)
	if refused := s.admit(conn); refused != nil { // after reading, so that the answer is not lost
		s.Log.Warn("request at the gate refused", "err", refused)
		s.tell(AnsweredRefused, start)
		s.send(conn, Reply{Error: refused.Error()}, start)
		return
	}
	if err != nil {
		s.send(conn, Reply{Error: err.Error()}, start)
		return
	}
	limit, cancel := context.WithTimeout(ctx, time.Duration(request.WaitMillis)*time.Millisecond)
	defer cancel()
	go func() { // ends with the connection: the peer hangs up, or we do
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	reply := s.answer(limit, request)
	if ctx.Err() != nil && request.Op == Add && reply.State != Enforced {
		s.tell(AnsweredNone, start)
		return // without an answer the client asks the next agent
	}
	if request.Op == Add {
		s.tell(answerOf(reply.State), start)
	}
	s.send(conn, reply, start)
	s.Log.Debug("gate request", "op", request.Op, "pod", request.Pod.Namespace+"/"+request.Pod.Name,
		"sandbox", request.Pod.Sandbox, "state", reply.State, "text", reply.Text, "elapsed", time.Since(start))
}

// Answer is what became of a pod that was announced. It is the value of a label, too.
type Answer string

// The answers: the three states, no answer since the agent stopped, and a refusal of a
// user who may not ask.
const (
	AnsweredEnforced Answer = "enforced"
	AnsweredIsolated Answer = "isolated"
	AnsweredUnknown  Answer = "unknown"
	AnsweredNone     Answer = "none"
	AnsweredRefused  Answer = "refused"
)

func answerOf(s State) Answer {
	switch s {
	case Enforced:
		return AnsweredEnforced
	case Isolated:
		return AnsweredIsolated
	}
	return AnsweredUnknown
}

func (s *Server) tell(a Answer, start time.Time) {
	if s.Answered != nil {
		s.Answered(a, time.Since(start))
	}
}

// admit wants the peer to be the owner, by the credentials that the kernel has of it.
func (s *Server) admit(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reading the peer's credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return fmt.Errorf("reading the peer's credentials: %w", err)
	}
	if cred.Uid != s.Owner {
		return fmt.Errorf("refusing user %d (process %d): only user %d may ask", cred.Uid, cred.Pid, s.Owner)
	}
	return nil
}

func receive(conn *net.UnixConn) (r Request, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(ioTime)); err != nil {
		return r, fmt.Errorf("reading the request: %w", err)
	}
	if err := readMessage(conn, MaxMessage, &r); err != nil {
		return r, fmt.Errorf("reading the request: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return r, fmt.Errorf("reading the request: %w", err)
	}
	return r, r.check()
}

func (s *Server) answer(ctx context.Context, r Request) Reply {
	switch r.Op {
	case Add:
		err := s.Keeper.Announce(ctx, r.Pod)
		switch {
		case err == nil:
			return Reply{State: Enforced}
		case errors.Is(err, ErrUnknown):
			return Reply{State: Unknown, Text: err.Error()}
		}
		return Reply{State: Isolated, Text: err.Error()}
	case Del:
		s.Keeper.Withdraw(r.Pod.Sandbox)
		return Reply{}
	case Off:
		s.Keeper.Off()
		return Reply{}
	case List:
		return Reply{Pods: s.Keeper.Announced()}
	}
	for _, k := range s.Keeper.Announced() {
		if k.Pod.Sandbox == r.Pod.Sandbox {
			return Reply{State: k.State, Text: k.Text}
		}
	}
	return Reply{State: Unknown, Text: "this sandbox is not announced"}
}

func (s *Server) send(conn *net.UnixConn, r Reply, start time.Time) {
	r.Version, r.TookMicros = Version, time.Since(start).Microseconds()
	err := conn.SetWriteDeadline(time.Now().Add(ioTime))
	if err == nil {
		err = json.NewEncoder(conn).Encode(r)
	}
	if err != nil {
		s.Log.Debug("client did not read the gate's answer", "err", err)
	}
}

// readMessage reads one line of JSON, of limit bytes at most.
func readMessage(from io.Reader, limit int64, into any) error {
	line, err := bufio.NewReader(io.LimitReader(from, limit)).ReadBytes('\n')
	switch {
	case errors.Is(err, io.EOF) && int64(len(line)) >= limit:
		return fmt.Errorf("it is longer than %d bytes", limit)
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	return json.Unmarshal(line, into)
}
