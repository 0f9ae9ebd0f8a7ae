// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// repeat is how often a failure that lasts is logged again.
const repeat = 30 * time.Second

func noFilter(*metav1.ListOptions) {}

// listWatch is client-go's, with what it meets told to a reporter, and with the
// lists that watches begin with given to the store.
type listWatch struct {
	*cache.ListWatch
	store  storage
	report *reporter
}

// ListWithContext lists the objects.
func (lw *listWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	lw.store.restart()
	list, err := lw.ListWatch.ListWithContext(ctx, options)
	lw.report.result(ctx, err)
	return list, err
}

// restored reports whether the server's newest revision is older than one that
// it has shown us: its store was put back. A watch from a revision that does not
// exist yet is silent until that one is reached, and then misses what came before.
// A list that cannot be had says nothing; the watch will.
func (lw *listWatch) restored(ctx context.Context, seen string) bool {
	was, err := strconv.ParseUint(seen, 10, 64)
	if err != nil || was == 0 {
		return false
	}
	list, err := lw.ListWatch.ListWithContext(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return false
	}
	meta, err := apimeta.ListAccessor(list)
	if err != nil {
		return false
	}
	is, err := strconv.ParseUint(meta.GetResourceVersion(), 10, 64)
	return err == nil && is < was
}

// WatchWithContext opens a watch.
func (lw *listWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if options.SendInitialEvents == nil && lw.restored(ctx, options.ResourceVersion) {
		return nil, apierrors.NewResourceExpired("the server's store was put back to an older state")
	}
	w, err := lw.ListWatch.WatchWithContext(ctx, options)
	if err != nil && options.SendInitialEvents != nil {
		if utilnet.IsConnectionRefused(err) {
			// While the first list is asked for, the Reflector waits after a refused
			// connection without looking at ctx, for up to half a minute; the agent
			// could not stop. It does not do so for an error that it cannot recognise.
			lw.report.result(ctx, err)
			return nil, errors.New(err.Error())
		}
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return nil, err // an older server that streams no lists; the Reflector lists instead
		}
	}
	lw.report.result(ctx, err)
	if err != nil || options.SendInitialEvents == nil {
		return w, err
	}
	return lw.store.stream(w), nil
}

// reporter says in the log how the server answers for one kind: at once when
// that changes, and every half minute while it is bad.
type reporter struct {
	log   *slog.Logger
	group string
	kind  string
	now   func() time.Time

	mu    sync.Mutex // guards what follows: lists and watches may overlap
	bad   string     // the kind of failure that lasts; empty if there is none
	since time.Time
	told  time.Time
}

func newReporter(log *slog.Logger, group, kind, server string) *reporter {
	return &reporter{log: log.With("kind", kind, "server", server), group: group, kind: kind, now: time.Now}
}

func (r *reporter) result(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // we are stopping; errors mean nothing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if err == nil {
		if r.bad != "" {
			r.log.Info("the API server answers again", "elapsed", now.Sub(r.since))
		}
		r.bad = ""
		return
	}
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // a list follows; that is how watches end
	}
	bad, level, attrs := r.classify(err)
	if r.bad == "" {
		r.since = now
	}
	if r.bad == bad && now.Sub(r.told) < repeat {
		return
	}
	r.bad, r.told = bad, now
	r.log.LogAttrs(ctx, level, bad, append(attrs, slog.Any("err", err), slog.Duration("elapsed", now.Sub(r.since)))...)
}

// classify names a failure: what an operator must act on is an error.
func (r *reporter) classify(err error) (message string, level slog.Level, attrs []slog.Attr) {
	switch {
	case apierrors.IsForbidden(err):
		group := r.group
		if group == "" {
			group = `""`
		}
		cure := fmt.Sprintf("bind a ClusterRole with the rule apiGroups: [%s], resources: [%s], verbs: [list, watch]",
			group, r.kind)
		return "not allowed to list and watch", slog.LevelError, []slog.Attr{slog.String("cure", cure)}
	case apierrors.IsUnauthorized(err):
		return "the API server does not accept the credentials", slog.LevelError,
			[]slog.Attr{slog.String("cure", "check the kubeconfig or the service account token")}
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return "the API server refuses", slog.LevelWarn, nil
	}
	return "the API server cannot be reached", slog.LevelWarn, nil
}
