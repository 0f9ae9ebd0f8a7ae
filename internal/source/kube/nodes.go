// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// errOwnOnly says what is lost where the Nodes may not be listed and watched.
var errOwnOnly = errors.New("only the own Node can be read, again after each refusal: its changes are seen late, " +
	"and addresses of other Nodes are not known")

// ownNode reads the one Node that this agent cannot do without.
type ownNode struct {
	client *rest.RESTClient
	name   string
	store  *cluster.Store
}

// read puts the own Node into the store, in place of the Nodes that were
// refused. A Node that does not exist is an answer too. The error is never nil:
// it says what is lost, or that the own Node may not be read either.
func (o *ownNode) read(ctx context.Context, refused error) error {
	var node prunedNode
	err := o.client.Get().Resource("nodes").Name(o.name).Do(ctx).Into(&node)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%w; reading the own Node: %v", refused, err) //nolint:errorlint // refused is the reason
	}
	o.store.Update(func(tx *cluster.Tx) {
		if err != nil {
			tx.DeleteNode(o.name)
		} else {
			tx.SetNode(convert.Node(&node.Node))
		}
		tx.SetSynced(cluster.Nodes)
	})
	return fmt.Errorf("%w; %w", refused, errOwnOnly)
}
