// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"log/slog"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// Reading again is paced, since its author may make room and take it away all the
// time: a while after there is room, one policy after another.
const (
	quietFor    = time.Second            // after a policy was wanted
	rereadEach  = 100 * time.Millisecond // between two
	rereadPause = 5 * time.Second        // after one that could not be read
)

// refill reads policies again that the store left out for lack of room and has room
// for now, until ctx ends. A watch does not bring them: they did not change.
func refill(ctx context.Context, c rest.Interface, store *cluster.Store, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-store.Wants():
		}
		pause(ctx, quietFor)
		for _, k := range store.Wanted() {
			if err := reread(ctx, c, store, k); err != nil && ctx.Err() == nil {
				log.Warn("reading a policy again failed, trying again", "policy", k.String(), "err", err)
				store.WantAgain(k)
				pause(ctx, rereadPause)
			}
			pause(ctx, rereadEach)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// reread lists the one policy, so that no other right is needed than to list. That it
// is gone is no error: the watch says so.
func reread(ctx context.Context, c rest.Interface, store *cluster.Store, k cluster.Key) error {
	one := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", k.Name).String()}
	var list networkingv1.NetworkPolicyList
	err := c.Get().Namespace(k.Namespace).Resource("networkpolicies").VersionedParams(&one,
		metav1.ParameterCodec).Do(ctx).Into(&list)
	if err != nil {
		return err
	}
	for i := range list.Items {
		p, _ := convert.Policy(&list.Items[i])
		store.Update(func(tx *cluster.Tx) { tx.Supply(p) })
	}
	return nil
}
