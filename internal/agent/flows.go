// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podwall/podwall/internal/agent/flows"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/source/kube"
)

// linesRoom is how many records wait for standard output; more are lost, and counted.
const linesRoom = 1024

// writeLines writes records as JSON, one a line.
func writeLines(out io.Writer, lines <-chan denied.Record) {
	enc := json.NewEncoder(out)
	for one := range lines {
		_ = enc.Encode(one) // nobody reads it
	}
}

// flowsSubject is the subject of the problems of denied flows.
const flowsSubject = "denied flows"

// notifier is a source that can write an Event on the pod of a denied flow.
type notifier interface {
	NotifyPod(pod cluster.Key, reason kube.PodReason, key, text string)
	CountPodEvents(count func(result string))
}

// newRecorder returns what records denied flows; nil if nothing is to be recorded. served are the
// Services of this agent; may be nil.
func newRecorder(cfg config.Config, store *cluster.Store, served denied.Services, s source, o *observe.Observer,
	out io.Writer, log *slog.Logger) *flows.Recorder {
	if cfg.DeniedGroup == 0 {
		return nil
	}
	r := &flows.Recorder{Node: cfg.NodeName, Group: cfg.DeniedGroup, Owners: store.Owners, Services: served,
		Lost: o.AddDeniedLost}
	r.Failed = func(err error) {
		if err == nil {
			observe.LogResolved(log, flowsSubject)
			o.ClearProblem(flowsSubject)
			return
		}
		text, cure := flows.Problem(err)
		p := observe.Problem{Subject: flowsSubject, Text: text, Cure: cure}
		p.Log(log)
		o.SetProblem(p)
	}
	byPolicy := slices.Contains(cfg.DeniedTo, config.DeniedCounters)
	r.Count = func(one denied.Record) {
		o.AddDenied(string(one.Verdict), one.Count)
		for _, p := range one.Policies {
			if byPolicy {
				o.AddDeniedBy(p.Namespace, p.Name, one.Direction, string(one.Verdict), one.Count)
			}
		}
	}
	n, reaches := s.(notifier)
	events := reaches && slices.Contains(cfg.DeniedTo, config.DeniedEvents)
	if events {
		n.CountPodEvents(o.AddDeniedEvent)
	}
	var lines chan denied.Record
	if slices.Contains(cfg.DeniedTo, config.DeniedStdout) {
		lines = make(chan denied.Record, linesRoom)
		go writeLines(out, lines) // for as long as the process lives: it may hang at who does not read
	}
	r.Show = func(one denied.Record) {
		select {
		case lines <- one:
		default:
			if lines != nil {
				o.AddDeniedLost(one.Count)
			}
		}
		if events {
			reason := kube.PolicyDenied
			if one.Verdict == denied.WouldDeny {
				reason = kube.PolicyWouldDeny
			}
			n.NotifyPod(*one.Subject().Pod, reason, one.Direction+" "+one.Service()+" "+one.Peer().String(),
				one.Sentence())
		}
	}
	return r.Begin()
}

// serveFlows records denied flows, if there is a recorder, and answers questions about them, and the
// pages, until ctx ends. The agent enforces without that, too, so a failure is a problem.
func serveFlows(ctx context.Context, g *errgroup.Group, cfg config.Config, r *flows.Recorder, o *observe.Observer,
	pages map[string]http.Handler, log *slog.Logger) {
	if r != nil {
		g.Go(func() error {
			r.Run(ctx)
			return nil
		})
	}
	s := &flows.Server{Recorder: r, Node: cfg.NodeName, Denied: deniedSince(), Pages: pages}
	g.Go(func() error { return answerFlows(ctx, s, o, log) })
}

// answersSubject is the subject of the problem that nobody is answered.
const answersSubject = "questions about denied flows"

// answerFlows takes the socket, as often as that takes, and answers there until ctx ends.
func answerFlows(ctx context.Context, s *flows.Server, o *observe.Observer, log *slog.Logger) error {
	said := false
	for err := s.Listen(ctx); err != nil; err = s.Listen(ctx) {
		if ctx.Err() != nil {
			return nil
		}
		p := observe.Problem{Subject: answersSubject, Text: err.Error(), Cure: "end the process that has the " +
			"socket; until then kubectl podwall flows gets no answer from this node"}
		if !said {
			p.Log(log)
		}
		said = true
		o.SetProblem(p)
		pause(ctx, tryLock)
	}
	if said {
		observe.LogResolved(log, answersSubject)
		o.ClearProblem(answersSubject)
	}
	return s.Run(ctx)
}

// deniedSince returns what counts the packets that policies have denied since now, or would have in
// audit mode. A counter that went back was made again by the kernel; what it had is counted as far as it was
// read.
func deniedSince() func() (uint64, error) { return summed(deniedByPolicy) }

// summed returns how far a counter has gone on since now, over its restarts.
func summed(read func() (uint64, error)) func() (uint64, error) {
	last, _ := read() // no table yet: 0
	sum := uint64(0)
	var mu sync.Mutex
	return func() (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		now, err := read()
		if err != nil {
			return sum, err
		}
		if now < last {
			last = 0
		}
		sum, last = sum+now-last, now
		return sum, nil
	}
}

func deniedByPolicy() (uint64, error) {
	c, err := ruleset.Open(0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // nothing is written
	counters, err := ruleset.Counters(c)
	sum := uint64(0)
	for _, name := range []string{ruleset.CounterIngress, ruleset.CounterEgress, ruleset.CounterAuditIngress,
		ruleset.CounterAuditEgress} {
		sum += counters[name]
	}
	return sum, err
}

// ListDenied prints what the agent of this node denied, as cfg asks.
func ListDenied(ctx context.Context, cfg config.Config, out io.Writer) error {
	if err := flows.Ask(ctx, out, time.Now().Add(-cfg.ListDenied), cfg.FollowDenied); err != nil {
		return fmt.Errorf("denied flows: %w", err)
	}
	return nil
}
