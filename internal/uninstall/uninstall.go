// SPDX-License-Identifier: Apache-2.0

// Package uninstall performs the two steps of uninstalling that need the whole cluster: it stops
// all agents, and waits until every node is clean. Jobs of the Helm chart run them before helm
// removes anything; between them helm creates the DaemonSet that cleans the nodes
// (deploy/uninstall.yaml). This package changes nothing on a node.
package uninstall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// The DaemonSets of the chart. The label app.kubernetes.io/name of their pods is their name.
const (
	Agents  = "podwall"
	Cleaner = "podwall-uninstall"
)

// ErrNotAll means that nodes are not done. The message names them.
var ErrNotAll = errors.New("not every node is done")

// ErrNotHelms means that the agents were not installed by helm, so no hook of helm may remove them.
var ErrNotHelms = errors.New("podwall was not installed by helm: nothing is done")

// byHelm is the annotation that helm sets on the objects that it installs.
const byHelm = "meta.helm.sh/release-name"

// Cluster is an API server and the namespace of podwall.
type Cluster struct {
	Namespace string
	// Out receives progress messages and the nodes that are waited for.
	Out io.Writer
	// Every is the polling interval.
	Every time.Duration

	client *rest.RESTClient
}

// New returns the cluster that a configuration leads to.
func New(cfg *rest.Config, namespace string, out io.Writer) (*Cluster, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // errors of the server
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.NegotiatedSerializer = &schema.GroupVersion{},
		serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return &Cluster{Namespace: namespace, Out: out, Every: time.Second, client: client}, nil
}

// StopAgents deletes the agents' DaemonSet and returns when no pod of it is left on a node that
// answers. The rules stay in the kernels. It works only for installations by helm: applying
// rendered manifests also applies the hooks in them, which would immediately remove the new
// installation. So a DaemonSet that helm did not create returns ErrNotHelms.
func (c *Cluster) StopAgents(ctx context.Context) error {
	if err := c.await(ctx, "the API server", c.byHelm); err != nil {
		return err
	}
	return c.await(ctx, "the agents to stop", func(ctx context.Context) ([]string, error) {
		if err := c.remove(ctx, Agents); err != nil {
			return nil, err
		}
		return c.left(ctx, Agents, func(pod) string { return "its agent still runs" }, true)
	})
}

// byHelm returns an error that wraps ErrNotHelms if the agents exist and helm did not create them.
func (c *Cluster) byHelm(ctx context.Context) ([]string, error) {
	var ds daemonSet
	err := c.get(ctx, c.daemonSet(Agents), nil, &ds)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil // another run has already begun
	case err != nil:
		return nil, err
	case ds.Metadata.Annotations[byHelm] == "":
		return nil, final{fmt.Errorf("%w: the DaemonSet %s has no annotation %s. "+
			"Do not apply manifests that were rendered with uninstall.enabled=true; "+
			"to uninstall without helm see docs/uninstall.md", ErrNotHelms, Agents, byHelm)}
	}
	return nil, nil
}

// final is an error that a retry does not cure.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

// AwaitNodes returns when the cleaner's pods are ready on all their nodes, and deletes the cleaner.
// If nodes are left the cleaner stays: it cleans nodes that come back.
func (c *Cluster) AwaitNodes(ctx context.Context) error {
	clean := 0
	err := c.await(ctx, "the nodes to be clean", func(ctx context.Context) ([]string, error) {
		var ds daemonSet
		if err := c.get(ctx, c.daemonSet(Cleaner), nil, &ds); err != nil {
			return nil, err
		}
		clean = ds.Status.Ready
		if ds.Status.ObservedGeneration < ds.Metadata.Generation {
			return []string{"the DaemonSet " + Cleaner + " is new"}, nil
		}
		if clean == ds.Status.Desired {
			return nil, nil
		}
		list, err := c.left(ctx, Cleaner, pod.why, false)
		if err != nil {
			return nil, err
		}
		if more := ds.Status.Desired - clean - len(list); more > 0 {
			list = append(list, fmt.Sprintf("%d nodes that have no pod yet: kubectl -n %s describe daemonset %s says "+
				"why",
				more, c.Namespace, Cleaner))
		}
		return list, nil
	})
	if errors.Is(err, ErrNotAll) {
		return fmt.Errorf("%w. Bring these nodes back, or cure what fails there, and run helm uninstall again; to "+
			"give them up: helm uninstall --no-hooks, then kubectl -n %s delete daemonset %s",
			err, c.Namespace, Cleaner)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "%d nodes are clean, no policy is enforced on them\n", clean)
	return c.remove(ctx, Cleaner)
}

// await polls until nothing is left, and reports each change. If the API server does not answer it
// tries again.
func (c *Cluster) await(ctx context.Context, what string, look func(context.Context) ([]string, error)) error {
	var said string
	for {
		left, err := look(ctx)
		if err == nil && len(left) == 0 {
			return nil
		}
		if errors.As(err, &final{}) {
			return err
		}
		if err == nil || said == "" || ctx.Err() == nil { // else it says that the time is over
			now := strings.Join(left, "\n  ")
			if err != nil {
				now = err.Error()
			}
			if now != said {
				fmt.Fprintf(c.Out, "waiting for %s:\n  %s\n", what, now)
			}
			said = now
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; still waiting for %s: %s", ErrNotAll, what, strings.ReplaceAll(said, "\n  ", "; "))
		case <-time.After(c.Every):
		}
	}
}

// left lists the nodes on which pods of a DaemonSet are not ready, or, if gone is set, on which
// pods exist at all. A pod of an agent on a dead node does not count for gone.
func (c *Cluster) left(ctx context.Context, name string, why func(pod) string, gone bool) (list []string, err error) {
	var pods, nodes objects
	query := url.Values{"labelSelector": {"app.kubernetes.io/name=" + name}}
	if err := c.get(ctx, "/api/v1/namespaces/"+c.Namespace+"/pods", query, &pods); err != nil {
		return nil, err
	}
	if err := c.get(ctx, "/api/v1/nodes", nil, &nodes); err != nil {
		return nil, err
	}
	answers := map[string]bool{}
	for _, n := range nodes.Items {
		answers[n.Metadata.Name] = n.ready()
	}
	for _, p := range pods.Items {
		switch node := p.Spec.NodeName; {
		case node == "" && !gone:
			list = append(list, "a pod without a node: "+p.unplaced())
		case gone && (node == "" || !answers[node]), !gone && p.ready():
		case !answers[node]:
			list = append(list, node+": the node is dead or does not answer")
		default:
			list = append(list, node+": "+why(p))
		}
	}
	slices.Sort(list)
	return list, nil
}

func (c *Cluster) daemonSet(name string) string {
	return "/apis/apps/v1/namespaces/" + c.Namespace + "/daemonsets/" + name
}

func (c *Cluster) get(ctx context.Context, path string, query url.Values, into any) error {
	request := c.client.Get().AbsPath(path)
	for key := range query {
		request.Param(key, query.Get(key))
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil { // the server's message, which Raw does not have
		return fmt.Errorf("reading %s: %w", path, err)
	}
	data, err := result.Raw()
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// remove deletes a DaemonSet; its pods follow.
func (c *Cluster) remove(ctx context.Context, name string) error {
	err := c.client.Delete().AbsPath(c.daemonSet(name)).Param("propagationPolicy", "Background").Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the DaemonSet %s: %w", name, err)
	}
	return nil
}
