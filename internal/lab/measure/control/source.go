// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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
	file    string
}

func newSynthetic(ctx context.Context, host *lab.Endpoint, dir string) (*synthetic, error) {
	l, err := host.NS.Listen(ctx, "tcp", netip.AddrPortFrom(host.Addrs[0], apiPort).String())
	if err != nil {
		return nil, fmt.Errorf("serving the cluster: %w", err)
	}
	s := &synthetic{Server: listwatch.New(), file: filepath.Join(dir, "kubeconfig")}
	if s.serving, err = s.Serve(l); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := os.WriteFile(s.file, []byte(s.serving.Kubeconfig), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing a kubeconfig: %w", err), s.close())
	}
	return s, nil
}

func (s *synthetic) kubeconfig() string { return s.file }
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
