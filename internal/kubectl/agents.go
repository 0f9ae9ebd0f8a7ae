// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// How agents are found and asked. Their program runs in their own container, by the API server's
// exec: that asks who may do it, and no agent has a port for it.
const (
	agentLabels    = "app.kubernetes.io/name=podwall"
	agentContainer = "agent"
	agentProgram   = "podwall-agent" // in the PATH of the image
	// maxLine is the longest line of an answer that is read.
	maxLine = 1 << 20
)

// agentPod is the agent of a node.
type agentPod struct {
	Key     cluster.Key
	Node    string
	Running bool
}

// agents are those of a cluster.
type agents interface {
	// list returns the agents, sorted by node.
	list(ctx context.Context) ([]agentPod, error)
	// denied writes the answer of one agent, line by line, until it ends or ctx does.
	denied(ctx context.Context, a agentPod, since time.Duration, follow bool, out io.Writer) error
}

// clusterAgents asks by an API server.
type clusterAgents struct{ config *rest.Config }

func newClusterAgents(config *rest.Config) *clusterAgents {
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &corev1.SchemeGroupVersion, "/api"
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	return &clusterAgents{config: c}
}

func (c *clusterAgents) client() (*rest.RESTClient, error) {
	client, err := rest.RESTClientFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return client, nil
}

func (c *clusterAgents) list(ctx context.Context) (list []agentPod, err error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	pods := &corev1.PodList{}
	err = client.Get().Resource("pods").VersionedParams(&metav1.ListOptions{LabelSelector: agentLabels},
		scheme.ParameterCodec).Do(ctx).Into(pods)
	if err != nil {
		return nil, fmt.Errorf("looking for agents: %w", err)
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if !slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == agentContainer }) {
			continue // of an installation of something else
		}
		running := slices.ContainsFunc(p.Status.ContainerStatuses,
			func(s corev1.ContainerStatus) bool { return s.Name == agentContainer && s.State.Running != nil })
		list = append(list, agentPod{Key: cluster.Key{Namespace: p.Namespace, Name: p.Name}, Node: p.Spec.NodeName,
			Running: running})
	}
	slices.SortFunc(list, func(a, b agentPod) int { return cmp.Or(cmp.Compare(a.Node, b.Node), a.Key.Compare(b.Key)) })
	return list, nil
}

func (c *clusterAgents) denied(ctx context.Context, a agentPod, since time.Duration, follow bool,
	out io.Writer) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	command := []string{agentProgram, "--list-denied-flows=" + since.String()}
	if follow {
		command = append(command, "--follow")
	}
	at := client.Post().Namespace(a.Key.Namespace).Resource("pods").Name(a.Key.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: agentContainer, Command: command, Stdout: true, Stderr: true},
			scheme.ParameterCodec).URL()
	streams, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, at.String())
	if err != nil {
		return fmt.Errorf("setting up exec: %w", err)
	}
	older, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, at)
	if err != nil {
		return fmt.Errorf("setting up exec: %w", err)
	}
	exec, err := remotecommand.NewFallbackExecutor(streams, older, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fmt.Errorf("setting up exec: %w", err)
	}
	said := &tail{}
	err = exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out, Stderr: said})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil && strings.Contains(err.Error(), "is forbidden"): // its type depends on the transport
		return fmt.Errorf("no right to create pods/exec in %s, which shows the flows of all namespaces: %w",
			a.Key.Namespace, err)
	case err != nil && said.String() != "":
		return errors.New(said.String())
	}
	return err
}

// tail keeps the last of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	const longest = 4 << 10
	t.text = append(t.text, b...)
	if len(t.text) > longest {
		t.text = slices.Clone(t.text[len(t.text)-longest:])
	}
	return len(b), nil
}

// String returns the last line.
func (t *tail) String() string {
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	return lines[len(lines)-1]
}

// lineWriter decodes the lines of an answer as they come. What is no line of an answer ends it.
type lineWriter struct {
	each func(denied.Line)
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 && len(w.rest) > maxLine {
			return 0, bufio.ErrTooLong
		}
		if i < 0 {
			return len(b), nil
		}
		var l denied.Line
		if err := json.Unmarshal(w.rest[:i], &l); err != nil {
			return 0, fmt.Errorf("reading the agent's answer: %w", err)
		}
		w.rest = w.rest[i+1:]
		w.each(l)
	}
}
