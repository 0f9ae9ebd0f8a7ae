// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/wake"
)

// How Events are paced; ADR 0022 has the reasons.
const (
	maxNotices = 256                    // that wait
	eventGap   = 100 * time.Millisecond // between two requests
	eventPause = time.Minute            // between two Events on one policy
	eventTurn  = 10 * time.Second       // between the turns of two nodes
	eventRetry = 30 * time.Second       // after a failure; doubles with each
	eventTries = 5                      // of one Event
	recheck    = 10 * time.Minute       // between two tries without the right
)

// EventResult is what became of an Event.
type EventResult string

// The results. An Event that exists was written by another node's agent, or before a
// restart. One that was dropped found no room, or a policy or findings that are gone.
const (
	EventWritten EventResult = "written"
	EventExists  EventResult = "exists"
	EventFailed  EventResult = "failed"
	EventDropped EventResult = "dropped"
)

// notice is what waits to be written about one policy.
type notice struct {
	findings []cluster.Diagnostic
	at       time.Time // not before; zero until the turn of this node is known
	tries    int
}

// notices are the Events that wait. They are written by the goroutine that runs run;
// add never waits for it.
type notices struct {
	log    *slog.Logger
	turn   time.Duration
	pause  time.Duration
	gap    time.Duration
	retry  time.Duration
	woken  wake.Signal
	mu     sync.Mutex // guards what follows
	queue  map[cluster.Key]*notice
	taken  map[cluster.Key]*notice   // what is being written; it may wait again
	spoken map[cluster.Key]time.Time // when an Event about the policy was written last
	count  func(EventResult)

	refused time.Time // since when the right is missing; zero if it is not
	said    bool      // the log says so
}

func newNotices(log *slog.Logger) *notices {
	return &notices{log: log, turn: eventTurn, pause: eventPause, gap: eventGap, retry: eventRetry, woken: wake.New(),
		queue: map[cluster.Key]*notice{}, taken: map[cluster.Key]*notice{}, spoken: map[cluster.Key]time.Time{},
		count: func(EventResult) {}}
}

// add has all findings about a policy written, in the place of what waits about it.
func (n *notices) add(policy cluster.Key, findings []cluster.Diagnostic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waits := n.queue[policy]
	switch {
	case waits != nil:
		waits.findings = findings
	case len(n.queue) >= maxNotices:
		n.count(EventDropped)
		return
	default:
		n.queue[policy] = &notice{findings: findings}
	}
	n.woken.Set()
}

// amend puts these findings, which may be none, in the place of what waits about a
// policy, or is tried in vain at this moment. Nothing is written because of it alone.
func (n *notices) amend(policy cluster.Key, findings []cluster.Diagnostic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if one := n.taken[policy]; one != nil {
		one.findings = findings
	}
	switch one := n.queue[policy]; {
	case one == nil:
	case len(findings) == 0:
		delete(n.queue, policy)
		n.count(EventDropped)
	default:
		one.findings = findings
	}
}

// speaker is who writes Events: a node with its connection.
type speaker struct {
	*notices
	client rest.Interface
	store  *cluster.Store
	node   string
	alone  func() bool // no other Nodes can be seen
}

// run writes what waits until ctx ends.
func (s *speaker) run(ctx context.Context) {
	for ctx.Err() == nil {
		policy, one, wait := s.next(time.Now())
		if one == nil {
			s.await(ctx, wait)
			continue
		}
		s.write(ctx, policy, one)
		pause(ctx, s.gap)
	}
}

// await waits until something is added, or so long if it is not 0.
func (s *speaker) await(ctx context.Context, wait time.Duration) {
	var due <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-s.woken:
	case <-due:
	}
}

// next takes the notice that is due. If none is, it says how long that takes; 0 for
// nothing that waits.
func (s *speaker) next(now time.Time) (policy cluster.Key, one *notice, wait time.Duration) {
	turns := s.turns()
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, when := range s.spoken {
		if now.Sub(when) >= s.pause {
			delete(s.spoken, k)
		}
	}
	for k, n := range s.queue {
		if n.at.IsZero() {
			turn, known := turns[k]
			switch {
			case !known:
				continue // it came just now; the signal is set
			case turn < 0:
				delete(s.queue, k)
				continue
			}
			n.at = now.Add(time.Duration(turn) * s.turn)
			if last, ok := s.spoken[k]; ok && n.at.Before(last.Add(s.pause)) {
				n.at = last.Add(s.pause)
			}
		}
		if one == nil || n.at.Before(one.at) {
			policy, one = k, n
		}
	}
	if one == nil {
		return policy, nil, 0
	}
	if wait := max(one.at.Sub(now), s.blocked(now)); wait > 0 {
		return policy, nil, wait
	}
	delete(s.queue, policy)
	s.taken[policy] = one
	return policy, one, 0
}

// turns returns when it is this node's turn to write about the policies that are new:
// 0 for the first, below 0 for never.
func (s *speaker) turns() map[cluster.Key]int {
	s.mu.Lock()
	var fresh []cluster.Key
	for k, n := range s.queue {
		if n.at.IsZero() {
			fresh = append(fresh, k)
		}
	}
	s.mu.Unlock()
	turns := map[cluster.Key]int{}
	if len(fresh) == 0 {
		return turns
	}
	var nodes []string
	if !s.alone() { // else every agent would be the first
		for _, n := range s.store.Nodes() {
			nodes = append(nodes, n.Name)
		}
	}
	for _, k := range fresh {
		turns[k] = turnOf(s.node, k, nodes)
	}
	return turns
}

// blocked says how long nothing is written since the right is missing. A server that
// was just started refuses all clients for a moment, so the first wait is short.
func (s *speaker) blocked(now time.Time) time.Duration {
	switch {
	case s.refused.IsZero():
		return 0
	case !s.said:
		return s.refused.Add(certain).Sub(now)
	}
	return s.refused.Add(recheck).Sub(now)
}

// write writes one Event. What fails waits again, unless there is something newer.
func (s *speaker) write(ctx context.Context, policy cluster.Key, one *notice) {
	s.mu.Lock()
	findings := one.findings // amend may change them meanwhile
	s.mu.Unlock()
	p := s.store.Policy(policy)
	if p == nil || len(findings) == 0 {
		s.drop(policy)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	now := time.Now()
	event := eventAbout(p, findings, s.node, now)
	err := s.client.Post().Namespace(policy.Namespace).Resource("events").Body(event).Do(ctx).Error()
	switch s.settle(policy, one, err, now) {
	case rightMissing:
		s.log.Warn("not allowed to write Events: findings about policies are in the log and in /statusz only",
			"cure", `bind a ClusterRole with the rule apiGroups: [""], resources: [events], verbs: [create]`)
	case rightGiven:
		s.log.Info("Events can be written now")
	case givenUp:
		s.log.Debug("an Event cannot be written", "policy", policy.String(), "err", err)
	}
}

func (s *speaker) drop(policy cluster.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, policy)
	s.count(EventDropped)
}

// outcome is what the log says of a request.
type outcome int

const (
	nothing outcome = iota
	rightMissing
	rightGiven
	givenUp
)

// settle takes the answer of the API server. The log is written by the caller: add
// must not wait for it.
func (s *speaker) settle(policy cluster.Key, one *notice, err error, now time.Time) outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, policy)
	if missesRight(err) {
		s.again(policy, one, now)
		return s.refuse(now)
	}
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		s.spoken[policy] = now
		s.count(resultOf(err))
		return s.allow()
	case !mayPass(err), one.tries+1 >= eventTries:
		s.count(EventFailed)
		return givenUp
	}
	one.tries++
	s.again(policy, one, now.Add(s.retry<<(one.tries-1)))
	return nothing
}

func resultOf(err error) EventResult {
	if err == nil {
		return EventWritten
	}
	return EventExists
}

// again puts back what could not be written, unless the findings are gone.
func (s *speaker) again(policy cluster.Key, one *notice, at time.Time) {
	if len(one.findings) > 0 && s.queue[policy] == nil && len(s.queue) < maxNotices {
		one.at = at
		s.queue[policy] = one
	}
}

// refuse notes that the right is missing. It is said once, at the second refusal.
func (s *speaker) refuse(now time.Time) outcome {
	second := !s.refused.IsZero() && !s.said
	s.refused = now
	if second {
		s.said = true
		return rightMissing
	}
	return nothing
}

// allow notes that the right is there.
func (s *speaker) allow() outcome {
	was := s.said
	s.refused, s.said = time.Time{}, false
	if was {
		return rightGiven
	}
	return nothing
}

// missesRight reports whether a role is missing. The API server names no object then,
// since it asks for the right before it reads the request. What a quota, a policy of
// the namespace or a webhook refuses has the Event's name, and concerns it alone.
func missesRight(err error) bool {
	if !apierrors.IsForbidden(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return false
	}
	status, ok := err.(apierrors.APIStatus) // the client returns it unwrapped
	return ok && (status.Status().Details == nil || status.Status().Details.Name == "")
}

// mayPass reports whether the same request may succeed later.
func mayPass(err error) bool {
	never := []func(error) bool{apierrors.IsForbidden, apierrors.IsNotFound, apierrors.IsInvalid,
		apierrors.IsBadRequest,
		apierrors.IsMethodNotSupported, apierrors.IsRequestEntityTooLargeError}
	return !slices.ContainsFunc(never, func(is func(error) bool) bool { return is(err) })
}
