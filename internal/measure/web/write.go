// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// writers write to the API server at the same time.
const writers = 32

// writeCluster writes what does not grow, and wires those who ask.
func (s *stage) writeCluster(ctx context.Context) (err error) {
	if err := s.writeNodes(ctx); err != nil {
		return err
	}
	if s.client, err = s.wire(client()); err != nil {
		return err
	}
	if s.stranger, err = s.wire(stranger()); err != nil {
		return err
	}
	for _, p := range append(servers(), client(), stranger()) {
		if err := createWhole(ctx, s.api.core, "pods", p.object()); err != nil {
			return err
		}
	}
	if err := create(ctx, s.api.core, "services", serviceObject(tested, testedAddress)); err != nil {
		return err
	}
	if err := create(ctx, s.api.discovery, "endpointslices", sliceObject(tested, "0", servers())); err != nil {
		return err
	}
	return create(ctx, s.api.networking, "networkpolicies", policy())
}

// writeNodes writes nodes and namespaces. The server makes the namespace default
// by itself, at some time.
func (s *stage) writeNodes(ctx context.Context) error {
	for i := range nodes {
		o := nodeObject(i+1, nil)
		if e := s.bed.Node(o.Name); e != nil {
			o = nodeObject(i+1, e.Addrs)
		}
		if err := createWhole(ctx, s.api.core, "nodes", o); err != nil {
			return err
		}
	}
	for _, name := range []string{home, abroad} {
		err := create(ctx, s.api.core, "namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// grow makes the pods that do nothing up to a number: those of the real nodes
// as namespaces, all as objects, and what stands behind the Services.
func (s *stage) grow(ctx context.Context, pods int) error {
	fresh := idlePods(s.Services, pods)[s.pods:]
	for _, p := range fresh {
		if _, err := s.wire(p); err != nil {
			return err
		}
	}
	err := inParallel(ctx, len(fresh), func(ctx context.Context, i int) error {
		return createWhole(ctx, s.api.core, "pods", fresh[i].object())
	})
	if err != nil {
		return err
	}
	if err := s.growServices(ctx, fresh, strconv.Itoa(pods)); err != nil {
		return err
	}
	s.pods = pods
	s.Say(fmt.Sprintf("%s pods of %s services are written, waiting for kube-proxy", thousands(pods), thousands(s.Services)))
	return s.proxied(ctx)
}

// growServices writes a slice of the fresh pods for each Service, and the
// Services before the first.
func (s *stage) growServices(ctx context.Context, fresh []pod, suffix string) error {
	behind := make([][]pod, s.Services)
	for _, p := range fresh {
		behind[p.service] = append(behind[p.service], p)
	}
	first := s.pods == 0
	return inParallel(ctx, s.Services, func(ctx context.Context, i int) error {
		if first {
			if err := create(ctx, s.api.core, "services", serviceObject(idleService(i), "")); err != nil {
				return err
			}
		}
		return create(ctx, s.api.discovery, "endpointslices", sliceObject(idleService(i), suffix, behind[i]))
	})
}

func inParallel(ctx context.Context, n int, write func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range n {
		group.Go(func() error { return write(ctx, i) })
	}
	return group.Wait()
}
