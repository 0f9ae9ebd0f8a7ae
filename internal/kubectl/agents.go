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
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
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
	agentLabel     = "app.kubernetes.io/name"
	agentName      = "podwall"
	agentLabels    = agentLabel + "=" + agentName
	agentContainer = "agent"
	agentProgram   = "podwall-agent" // in the PATH of the image
	// agentsNamespace is that of the manifest.
	agentsNamespace = "podwall-system"
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
	// show writes what one agent knows of itself: a value of its flag --show.
	show(ctx context.Context, a agentPod, what string, out io.Writer) error
}

// clusterAgents asks by an API server. Agents are in one namespace: the rights there say who is believed,
// and a pod of another namespace with their labels would be anybody's.
type clusterAgents struct {
	config    *rest.Config
	namespace string // not empty
}

func newClusterAgents(config *rest.Config, namespace string) *clusterAgents {
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &corev1.SchemeGroupVersion, "/api"
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	return &clusterAgents{config: c, namespace: namespace}
}

func (c *clusterAgents) client() (*rest.RESTClient, error) {
	client, err := rest.RESTClientFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return client, nil
}

func (c *clusterAgents) list(ctx context.Context) ([]agentPod, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	pods := &corev1.PodList{}
	err = client.Get().Namespace(c.namespace).Resource("pods").
		VersionedParams(&metav1.ListOptions{LabelSelector: agentLabels}, scheme.ParameterCodec).Do(ctx).Into(pods)
	if err != nil {
		return nil, fmt.Errorf("looking for agents: %w", err)
	}
	return agentsAmong(pods.Items), nil
}

// findAgents returns the agents of a cluster; of one node if it is given. those is set in tests.
func (s *source) findAgents(ctx context.Context, those agents, node string) (agents, []agentPod, error) {
	if s.agents == "" { // to the API server it would mean all
		return nil, nil, errors.New("--agents-namespace: want the name of a namespace")
	}
	if those == nil {
		config, err := s.cluster.ToRESTConfig()
		if err != nil {
			return nil, nil, fmt.Errorf("finding the cluster: %w; %s", err, s.cure())
		}
		those = newClusterAgents(config, s.agents)
	}
	all, err := those.list(ctx)
	if err != nil {
		return nil, nil, s.unanswered(ctx, err)
	}
	asked := slices.DeleteFunc(slices.Clone(all), func(a agentPod) bool { return node != "" && a.Node != node })
	switch {
	case len(all) == 0:
		return nil, nil, fmt.Errorf("no agent runs in the namespace %s: no pod of a DaemonSet has the label %s there; "+
			"name the namespace of podwall with --agents-namespace", s.agents, agentLabels)
	case len(asked) == 0:
		return nil, nil, fmt.Errorf("no agent runs on a node %s", node)
	}
	return those, asked, nil
}

// agentsAmong returns the agents among pods with their labels: those of a DaemonSet that have their
// container, sorted by node.
func agentsAmong(pods []corev1.Pod) (list []agentPod) {
	for i := range pods {
		p := &pods[i]
		if by := metav1.GetControllerOf(p); by == nil || by.Kind != "DaemonSet" ||
			by.APIVersion != appsv1.SchemeGroupVersion.String() {
			continue // made by hand, or by another program
		}
		if !slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == agentContainer }) {
			continue // of an installation of something else
		}
		running := slices.ContainsFunc(p.Status.ContainerStatuses,
			func(s corev1.ContainerStatus) bool { return s.Name == agentContainer && s.State.Running != nil })
		list = append(list, agentPod{Key: cluster.Key{Namespace: p.Namespace, Name: p.Name}, Node: p.Spec.NodeName,
			Running: running})
	}
	slices.SortFunc(list, func(a, b agentPod) int { return cmp.Or(cmp.Compare(a.Node, b.Node), a.Key.Compare(b.Key)) })
	return list
}

func (c *clusterAgents) denied(ctx context.Context, a agentPod, since time.Duration, follow bool,
	out io.Writer) error {
	args := []string{"--list-denied-flows=" + since.String()}
	if follow {
		args = append(args, "--follow")
	}
	return c.exec(ctx, a, args, out)
}

func (c *clusterAgents) show(ctx context.Context, a agentPod, what string, out io.Writer) error {
	return c.exec(ctx, a, []string{"--show=" + what}, out)
}

// exec runs the agent's program in the agent's container until it ends or ctx does.
func (c *clusterAgents) exec(ctx context.Context, a agentPod, args []string, out io.Writer) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	command := append([]string{agentProgram}, args...)
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
		return fmt.Errorf("no right to create pods/exec in %s, which shows what is of all namespaces: %w",
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

// lineWriter decodes the lines of an answer as they come. What is no line of an answer ends it: err says
// why, and end is called. The error stays here because exec logs that of a writer and reads on.
type lineWriter struct {
	each func(denied.Line)
	end  func()

	mu     sync.Mutex // exec may still write when it has returned
	closed bool
	rest   []byte
	err    error
}

// Write takes a part of an answer. It never fails.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.err != nil {
		return len(b), nil
	}
	w.rest = append(w.rest, b...)
	for w.err == nil {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole && len(line) <= maxLine {
			return len(b), nil
		}
		var l denied.Line
		if w.err = bufio.ErrTooLong; whole {
			w.err = json.Unmarshal(line, &l)
		}
		if w.err == nil {
			w.rest = rest
			w.each(l)
		}
	}
	w.err = fmt.Errorf("reading the agent's answer: %w", w.err)
	w.end()
	return len(b), nil
}

// close ends the answer: nothing is decoded after it. It returns why the answer was ended before.
func (w *lineWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return w.err
}
