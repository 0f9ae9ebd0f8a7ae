// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/source/feed"
)

// A failure that lasts is logged again after firstRepeat, then each time after
// twice the wait, up to lastRepeat.
const (
	firstRepeat = 30 * time.Second
	lastRepeat  = time.Hour
)

// certain is how long a server must have refused before the cure says that a
// right is missing. A server that has just started refuses all clients for a moment,
// until it has read its own roles.
const certain = 5 * time.Second

// reporter keeps how the server answers for one kind, and says it in the log: at
// once when that changes, and ever more seldom while it is bad.
type reporter struct {
	log     *slog.Logger
	group   string
	kind    string
	refused func() // is called when the credentials are not accepted; may be nil
	count   func(ErrorReason)
	now     func() time.Time

	mu    sync.Mutex // guards what follows: lists and watches may overlap
	feed  feed.Feed
	bad   string        // the kind of failure that lasts; empty if there is none
	since time.Time     // the failure began, of whatever kind
	told  time.Time     // it was logged last
	wait  time.Duration // until it is logged again
	from  time.Time     // this kind of failure began
	own   bool          // the own Node alone may be read, whatever failed since
}

func newReporter(log *slog.Logger, group, kind, server string) *reporter {
	return &reporter{log: log.With("kind", kind, "server", server), group: group, kind: kind, now: time.Now,
		count: func(ErrorReason) {},
		feed:  feed.Feed{Kind: kind, Since: time.Now()}}
}

// state returns how the kind stands at this moment.
func (r *reporter) state() feed.Feed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.feed
}

// seesOwnOnly reports whether the own Node alone may be read. Another failure does not
// end that, only a watch of all Nodes does.
func (r *reporter) seesOwnOnly() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own
}

// heard records a sign of life of the server.
func (r *reporter) heard() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed.Heard = r.now()
}

// listed takes the outcome of a list. One that succeeds does not end a failure:
// a kind that may be listed and not watched is not followed.
func (r *reporter) listed(ctx context.Context, err error) {
	if err != nil {
		r.result(ctx, err)
		return
	}
	r.heard()
}

// result takes the outcome of opening a watch, or the failure of anything else.
func (r *reporter) result(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // we are stopping; errors mean nothing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch now := r.now(); {
	case err == nil:
		r.good(now)
	case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
		// a list follows; that is how watches end
	default:
		r.failed(ctx, err, now)
	}
}

func (r *reporter) good(now time.Time) {
	if r.bad != "" {
		r.log.Info("the API server answers again", "elapsed", now.Sub(r.since))
	}
	r.bad, r.own = "", false
	if !r.feed.Connected {
		r.feed.Connected, r.feed.Since = true, now
	}
	r.feed.Seldom, r.feed.Heard, r.feed.Err, r.feed.Cure = false, now, "", ""
}

func (r *reporter) failed(ctx context.Context, err error, now time.Time) {
	if request, ok := err.(*url.Error); ok { //nolint:errorlint // what it wraps is what is wanted
		err = request.Err // the request differs from kind to kind, and each has its field
	}
	if r.bad == "" {
		r.since = now
	}
	if r.feed.Connected {
		r.feed.Connected, r.feed.Since = false, now
	}
	if r.feed.Seldom = errors.Is(err, errOwnOnly); r.feed.Seldom {
		r.feed.Heard, r.own = now, true
	}
	f := r.classify(err)
	if !r.feed.Seldom { // else a narrow role would count for ever
		r.count(f.reason)
	}
	changed := r.bad != f.message
	if changed {
		r.bad, r.from, r.wait = f.message, now, firstRepeat
	}
	cured := r.feed.Cure != ""
	f = f.after(now.Sub(r.from))
	r.feed.Err, r.feed.Cure = f.message+": "+err.Error(), f.cure
	if f.credentials && r.refused != nil {
		r.refused()
	}
	switch {
	case changed || cured != (f.cure != ""):
		r.tell(ctx, f, err, now)
	case now.Sub(r.told) >= r.wait:
		r.wait = min(2*r.wait, lastRepeat)
		r.tell(ctx, f, err, now)
	}
}

func (r *reporter) tell(ctx context.Context, f failure, err error, now time.Time) {
	r.told = now
	attrs := []slog.Attr{slog.Any("err", err), slog.Duration("elapsed", now.Sub(r.since))}
	if f.cure != "" {
		attrs = append(attrs, slog.String("cure", f.cure))
	}
	r.log.LogAttrs(ctx, f.level, f.message, attrs...)
}

// watchBroke is how client-go marks the error of a stream that ended within an
// event, or whose connection was lost.
const watchBroke metav1.CauseType = "ClientWatchDecoding"

// ErrorReason is why a request failed, or a watch ended early.
type ErrorReason string

// The reasons. ErrorRefused is every other answer of the server that is an error.
const (
	ErrorBroken       ErrorReason = "broken"
	ErrorForbidden    ErrorReason = "forbidden"
	ErrorRefused      ErrorReason = "refused"
	ErrorUnauthorized ErrorReason = "unauthorized"
	ErrorUnreachable  ErrorReason = "unreachable"
)

// failure is what people read of an error.
type failure struct {
	reason        ErrorReason
	message, cure string
	level         slog.Level // what an operator must act on is an error
	credentials   bool       // they are not accepted
	passing       bool       // it may pass by itself soon after a start of the server
}

// after is the failure as it reads when it has lasted so long.
func (f failure) after(lasted time.Duration) failure {
	if f.passing && lasted < certain {
		f.cure, f.level = "", slog.LevelWarn
	}
	return f
}

// classify names a failure.
func (r *reporter) classify(err error) failure {
	switch {
	case apierrors.IsForbidden(err):
		group := r.group
		if group == "" {
			group = `""`
		}
		return failure{reason: ErrorForbidden, message: "not allowed to list and watch", level: slog.LevelError,
			passing: true,
			cure: fmt.Sprintf(
				"bind a ClusterRole with the rule apiGroups: [%s], resources: [%s], verbs: [list, watch]", group,
				r.kind)}
	case apierrors.IsUnauthorized(err):
		return failure{reason: ErrorUnauthorized, message: "the API server does not accept the credentials",
			level:       slog.LevelError,
			credentials: true,
			cure:        "replace them in the kubeconfig, which is read again, or check the service account"}
	case apierrors.HasStatusCause(err, watchBroke):
		return failure{reason: ErrorBroken, message: "the connection of a watch broke", level: slog.LevelWarn}
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return failure{reason: ErrorRefused, message: "the API server refuses", level: slog.LevelWarn}
	}
	return failure{reason: ErrorUnreachable, message: "the API server cannot be reached", level: slog.LevelWarn}
}
