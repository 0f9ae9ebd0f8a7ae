// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package socket sends the packets of a probe from the network namespace that it runs in, and sees
// what comes back. It uses ordinary sockets and needs no capability; what an answer proves is said
// in package connect.
package socket

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/connect"
)

// step is how long one wait for news is, so that an ended context is noticed.
const step = 100 * time.Millisecond

// question is a DNS query for the name servers of the root, which any DNS server answers, if only
// with an error. It is what is sent by UDP, whatever the port.
const question = "pw\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"

// Ask sends a packet to each target, and returns what came back before patience was over or ctx
// ended. UDP is sent again after a fifth and three fifths of that time, about as the kernel does
// with TCP.
func Ask(ctx context.Context, targets []connect.Target, patience time.Duration) connect.Report {
	begun := time.Now()
	all := make([]*asked, len(targets))
	for i, t := range targets {
		all[i] = begin(t)
	}
	again := []time.Duration{patience / 5, patience * 3 / 5}
	for ctx.Err() == nil {
		open, since := stillOpen(all), time.Since(begun)
		if len(open) == 0 || since >= patience {
			break
		}
		if len(again) > 0 && since >= again[0] {
			again = again[1:]
			for _, a := range open {
				a.repeat()
			}
		}
		poll(open, min(step, patience-since))
	}
	poll(stillOpen(all), 0) // what came while this process had to wait for a processor
	r := connect.Report{Seconds: int(patience / time.Second)}
	for _, a := range all {
		a.end(connect.Silent) // if nothing came
		r.Answers = append(r.Answers, a.outcome)
		if a.err != nil && r.Detail == "" {
			r.Detail = fmt.Sprintf("%s: %v", a.target, a.err)
		}
	}
	return r
}

func stillOpen(all []*asked) (list []*asked) {
	for _, a := range all {
		if a.outcome == "" {
			list = append(list, a)
		}
	}
	return list
}

// poll waits for news of sockets, at most so long, and reads them.
func poll(open []*asked, patience time.Duration) {
	fds := make([]unix.PollFd, len(open))
	for i, a := range open {
		fds[i] = unix.PollFd{Fd: int32(a.fd), Events: a.events()}
	}
	// A wait that a signal ends is one without news.
	n, err := unix.Poll(fds, int((patience+time.Millisecond-1)/time.Millisecond))
	for i := 0; err == nil && n > 0 && i < len(open); i++ {
		if fds[i].Revents != 0 {
			open[i].news(fds[i].Revents)
		}
	}
}
