// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

func noFilter(*metav1.ListOptions) {}

// listWatch is client-go's, with what it meets told to a reporter, and with the
// lists that watches begin with given to the store.
type listWatch struct {
	*cache.ListWatch
	store  storage
	report *reporter
	// instead is asked when the kind may not be listed or not be watched, each time
	// that it is refused. It may be nil. The error replaces the refusal.
	instead func(ctx context.Context, refused error) error
}

// ListWithContext lists the objects.
func (lw *listWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	lw.store.restart()
	list, err := lw.ListWatch.ListWithContext(ctx, options)
	lw.report.listed(ctx, lw.replace(ctx, err))
	return list, err
}

func (lw *listWatch) replace(ctx context.Context, err error) error {
	if lw.instead == nil || !apierrors.IsForbidden(err) {
		return err
	}
	return lw.instead(ctx, err)
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
	first := options.SendInitialEvents != nil
	if !first && lw.restored(ctx, options.ResourceVersion) {
		return nil, apierrors.NewResourceExpired("the server's store was put back to an older state")
	}
	w, err := lw.ListWatch.WatchWithContext(ctx, options)
	if err != nil && first {
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
	lw.report.result(ctx, lw.replace(ctx, err))
	if err != nil {
		return w, err
	}
	take := func(watch.Event) bool { return false }
	if first {
		take = lw.store.collector()
	}
	return newStreamed(w, func(e watch.Event) bool {
		lw.hear(ctx, e)
		return take(e)
	}), nil
}

// hear notes that the server said something, and what went wrong on the way.
func (lw *listWatch) hear(ctx context.Context, e watch.Event) {
	if e.Type == watch.Error {
		lw.report.result(ctx, apierrors.FromObject(e.Object))
		return
	}
	lw.report.heard()
}
