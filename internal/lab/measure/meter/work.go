// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	payload      = 18 // bytes of a datagram: the smallest Ethernet frame
	askBytes     = 100
	answerBytes  = 650
	block        = 64 << 10
	streamBuffer = 4 << 20
	firstPort    = 1024
	lastPort     = 65000
	udpHeader    = 8
	patience     = 1 // second until a packet counts as lost
	warm         = 64
)

// measure does what the request asks, batch by batch.
func measure(r Request) ([]float64, error) {
	work, closing, err := prepare(r)
	if err != nil {
		return nil, errors.Join(err, closing())
	}
	var list []float64
	for range r.Times {
		before := cpuTime()
		if err := work(r.N); err != nil {
			return nil, errors.Join(err, closing())
		}
		list = append(list, float64(cpuTime()-before)/float64(r.N))
	}
	return list, closing()
}

// sockets are what a measurement opened.
type sockets struct{ list []int }

func (s *sockets) add(fd int, err error) (int, error) {
	if err == nil {
		s.list = append(s.list, fd)
	}
	return fd, err
}

func (s *sockets) close() error {
	var errs []error
	for _, fd := range s.list {
		errs = append(errs, shut(fd))
	}
	return errors.Join(errs...)
}

// prepare opens the sockets, and warms up. The work may be done several times.
func prepare(r Request) (work func(n int) error, closing func() error, err error) {
	s := &sockets{}
	switch r.Kind {
	case Established, Unanswered:
		work, err = s.flow(r)
	case First:
		work, err = s.flows(r)
	case Connection:
		work, err = s.connections(r)
	case Keepalive, Stream:
		work, err = s.connection(r)
	default:
		err = fmt.Errorf("unknown kind %q", r.Kind)
	}
	if err == nil {
		err = work(warm)
	}
	return work, s.close, err
}

// waits bounds how long calls on a socket wait.
func waits(fd int) error {
	limit := &unix.Timeval{Sec: patience}
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit))
}
