// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/test/cluster"
)

// places say on which nodes, counted from one, the ends of the two flows are.
type places struct{ friend, web, stranger, shut int }

// cast are the ends of the flows: web lets the friend in and nobody else, shut
// lets nobody in.
type cast struct {
	t                           *trial
	namespace                   string
	friend, web, stranger, shut *cluster.Pod
}

const webPort = 8080

// policies are those of a cast.
func policies(namespace string) string {
	return fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: %[1]s}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut, namespace: %[1]s}
spec: {podSelector: {matchLabels: {app: shut}}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: jailed, namespace: %[1]s}
spec: {podSelector: {matchLabels: {app: jailed}}, policyTypes: [Egress]}
`, namespace)
}

// newCast makes a namespace with the pods and their policies.
func newCast(ctx context.Context, t *trial, namespace string, at places) (c *cast, err error) {
	c = &cast{t: t, namespace: namespace}
	if err := t.Namespace(ctx, namespace); err != nil {
		return nil, err
	}
	if err := t.apply(ctx, policies(namespace)); err != nil {
		return nil, errors.Join(err, c.remove(ctx))
	}
	for _, p := range []struct {
		pod  **cluster.Pod
		name string
		node int
	}{{&c.friend, "friend", at.friend}, {&c.web, "web", at.web}, {&c.stranger, "stranger", at.stranger},
		{&c.shut, "shut", at.shut}} {
		*p.pod, err = t.Run(ctx, cluster.PodSpec(namespace, p.name, t.node(p.node).Name,
			"netexec", fmt.Sprint("--http-port=", webPort)))
		if err != nil {
			return nil, errors.Join(err, c.remove(ctx))
		}
	}
	return c, nil
}

func (w *world) node(i int) *cluster.Node { return w.Nodes()[min(i, len(w.Nodes()))-1] }

func (c *cast) remove(ctx context.Context) error {
	return c.t.Client().CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), c.namespace, metav1.DeleteOptions{})
}

// start starts both flows.
func (c *cast) start(ctx context.Context) (fs flows, err error) {
	if fs.never, err = newFlow(ctx, c.stranger, c.shut, false); err != nil {
		return fs, err
	}
	if fs.always, err = newFlow(ctx, c.friend, c.web, true); err != nil {
		_, _, ended := fs.never.end()
		return fs, errors.Join(err, ended)
	}
	return fs, nil
}

// during runs something under both flows, and judges them.
func (c *cast) during(ctx context.Context, what string, happens func() error) error {
	fs, err := c.start(ctx)
	if err != nil {
		return err
	}
	err = happens()
	return errors.Join(err, fs.judge(c.t, what))
}

// under makes the ends of both flows, and runs something under them.
func under(ctx context.Context, t *trial, namespace string, at places, happens func(c *cast) error) error {
	c, err := newCast(ctx, t, namespace, at)
	if err != nil {
		return err
	}
	err = c.during(ctx, "", func() error { return happens(c) })
	return errors.Join(err, c.remove(ctx))
}
