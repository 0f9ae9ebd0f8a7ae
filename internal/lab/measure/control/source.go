// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
)

// source is a cluster that an agent reads and that the measurement changes. Each
// method returns when the change began its way to the agent.
type source interface {
	create(ctx context.Context, o listwatch.Object) (time.Time, error)
	// update writes a new state of a policy, or new labels of something else.
	update(ctx context.Context, o listwatch.Object) (time.Time, error)
	remove(ctx context.Context, o listwatch.Object) (time.Time, error)
	// fill writes a whole cluster.
	fill(ctx context.Context, s shape, own []netip.Addr) error
	kubeconfig() string
	close() error
}

const apiPort = 6443

// synthetic is a source in this process.
type synthetic struct {
	*listwatch.Server
	serving *listwatch.Serving
}

func newSynthetic(ctx context.Context, host *lab.Endpoint, dir string) (*synthetic, error) {
	s := &synthetic{Server: listwatch.New()}
	var err error
	s.serving, err = s.ServeIn(ctx, host.NS, netip.AddrPortFrom(host.Addrs[0], apiPort), dir)
	return s, err
}

func (s *synthetic) kubeconfig() string { return s.serving.File }
func (s *synthetic) close() error       { return s.serving.Close() }

func (s *synthetic) create(_ context.Context, o listwatch.Object) (time.Time, error) { return s.Put(o) }
func (s *synthetic) update(_ context.Context, o listwatch.Object) (time.Time, error) { return s.Put(o) }
func (s *synthetic) remove(_ context.Context, o listwatch.Object) (time.Time, error) {
	return s.Delete(o)
}

func (s *synthetic) fill(ctx context.Context, sh shape, own []netip.Addr) error {
	for _, o := range sh.objects(own) {
		if _, err := s.Put(o); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	s.Forget() // what it was filled with is no news
	return nil
}

// objects are all of the shape, in an order in which they can be created.
func (s shape) objects(own []netip.Addr) []listwatch.Object {
	var list []listwatch.Object
	for _, o := range s.listNamespaces() {
		list = append(list, o)
	}
	for _, o := range s.listNodes(own) {
		list = append(list, o)
	}
	for _, o := range s.listPods() {
		list = append(list, o)
	}
	for _, o := range s.listPolicies() {
		list = append(list, o)
	}
	return list
}
