// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/source/manifest"
)

// bundleSchema names the form of bundle.json.
const bundleSchema = "podwall.bundle/v1"

// Each part of an agent's answer is kept in memory until it is in the archive, so both are bounded.
const (
	maxPart    = 32 << 20
	maxBundled = 8 // agents that are asked at the same time
)

type bundleCommand struct {
	source  *source
	out     string
	node    string
	version string
	// agents are those of the cluster; set in tests.
	agents agents
	now    func() time.Time
	most   int // bytes of a part

	mu   sync.Mutex // guards what follows, and progress
	done int
}

func newBundle(s Streams, version string) *cobra.Command { return bundleOf(s, version, nil) }

func bundleOf(s Streams, version string, a agents) *cobra.Command {
	c := &bundleCommand{source: newSource(s), version: version, agents: a, now: time.Now, most: maxPart}
	return c.command()
}

func (c *bundleCommand) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Collect what a bug report needs into one archive",
		Long: `bundle writes a tar.gz with the network policies, and of namespaces, pods and
nodes what policies depend on: names, labels, addresses, ports. Of each agent it
has the status (/statusz), the metrics and the nftables rules that it has loaded,
with what differs in the kernel. With -f it has the objects of the files only.

It never asks for Secrets and ConfigMaps. Everything else of a pod, as its
environment and its command line, is dropped when the pod is read; so are
annotations, except those that podwall obeys. Names and addresses are in it: look
at it before you send it.

It needs the right to list these objects, and to create pods/exec in the namespace
of the agents (--agents-namespace). What it may not read is left out, and named on
standard error and in bundle.json. A node has a minute for each part, or
--request-timeout, and 32 MiB.

Unpacked, it answers as the cluster did, except about Services:
kubectl podwall explain -f podwall-bundle/objects SRC DST:PORT

Exit status: 0 written; 3 written, but something is not in it (stderr says what);
2 nothing is written: wrong command line, the file exists, no connection.`,
		Example: `  kubectl podwall bundle
  kubectl podwall bundle --node node1 -o bundle.tar.gz
  kubectl podwall bundle -o - | tar -tz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.source.bindFiles(cmd)
	c.source.bindCluster(cmd)
	c.source.bindAgents(cmd)
	f := cmd.Flags()
	f.StringVarP(&c.out, "output", "o", "", "`FILE` to write, which must not exist; - for the standard output; "+
		"by default podwall-bundle-TIME.tar.gz here")
	f.StringVar(&c.node, "node", "", "ask the agent of the node `NAME` only")
	return cmd
}

// bundleReport is bundle.json: what is in the archive, and what is not.
type bundleReport struct {
	Schema  string    `json:"schema"`
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of this program
	// Objects counts those of each kind.
	Objects map[string]int `json:"objects"`
	Nodes   []bundledNode  `json:"nodes"`
	// Missing says what could not be read.
	Missing []string `json:"missing"`
}

// bundledNode is what there is of one agent.
type bundledNode struct {
	Node string `json:"node"`
	Pod  string `json:"pod"`
	Dir  string `json:"dir"`
	// Errors say which parts are missing or not whole.
	Errors []string `json:"errors,omitempty"`
}

func (c *bundleCommand) run(ctx context.Context) error {
	at := c.now().UTC()
	if c.out == "" {
		c.out = "podwall-bundle-" + at.Format("20060102-150405") + ".tar.gz"
	}
	out, drop, err := openArchive(c.out, c.source.streams.Out)
	if err != nil {
		return err
	}
	a := newArchive(out, at)
	r := &bundleReport{Schema: bundleSchema, Time: at, Version: c.version, Objects: map[string]int{},
		Nodes: []bundledNode{}, Missing: []string{}}
	if err = c.fill(ctx, a, r); err == nil {
		err = a.addJSON("bundle.json", r)
	}
	if err == nil {
		err = a.close()
	}
	if err = errors.Join(err, out.Close(), ctx.Err()); err != nil {
		drop()
		return fmt.Errorf("no bundle is written: %w", err)
	}
	for _, text := range r.Missing {
		c.source.say("error: " + text)
	}
	if c.out != "-" {
		c.source.say(c.out + " is written; it has names and addresses of the cluster, look at it before you send it")
	}
	if len(r.Missing) > 0 {
		return exit{statusNotWritten}
	}
	return nil
}

// fill adds the objects and what the agents answer.
func (c *bundleCommand) fill(ctx context.Context, a *archive, r *bundleReport) error {
	objects, err := c.objects(ctx, r)
	if err != nil {
		return err
	}
	for _, resource := range bundledKinds() {
		list := append([]any{}, objects[resource]...)
		r.Objects[resource] = len(list)
		if err := a.addJSON("objects/"+resource+".json", map[string]any{"apiVersion": "v1", "kind": "List",
			"items": list}); err != nil {
			return err
		}
	}
	if c.source.files() {
		return nil // they have no agents
	}
	var asked []agentPod
	if c.agents, asked, err = c.source.findAgents(ctx, c.agents, c.node); err != nil {
		if c.node != "" {
			return err // that of this node was asked for
		}
		r.Missing = append(r.Missing, err.Error())
		return nil
	}
	patience, err := c.source.answerTime()
	if err != nil {
		return err
	}
	r.Nodes = c.askAll(ctx, asked, a, patience)
	for _, n := range r.Nodes {
		for _, text := range n.Errors {
			r.Missing = append(r.Missing, "node "+n.Node+": "+text)
		}
	}
	return nil
}

// objects returns those of the cluster, or of files.
func (c *bundleCommand) objects(ctx context.Context, r *bundleReport) (reducedObjects, error) {
	if c.source.files() {
		if c.node != "" {
			return nil, errors.New("--node: files have no agents")
		}
		return c.ofFiles(r)
	}
	namespace, err := c.source.namespace()
	if err != nil {
		return nil, err
	}
	config, err := c.source.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; %s", err, c.source.cure())
	}
	l, err := newLister(config, namespace)
	if err != nil {
		return nil, err
	}
	c.source.say("reading the objects")
	objects, err := l.reduced(ctx, r)
	return objects, c.source.unanswered(ctx, err)
}

// reduced lists the objects of a cluster. A page is dropped before the next one is read.
func (l *lister) reduced(ctx context.Context, r *bundleReport) (reducedObjects, error) {
	objects := reducedObjects{}
	core, net := corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion
	namespaces, nodes := &corev1.NamespaceList{}, &corev1.NodeList{}
	pods, policies := &corev1.PodList{}, &networkingv1.NetworkPolicyList{}
	reads := map[string]func(string) error{
		"namespaces": func(name string) error {
			return l.read(ctx, core, name, false, namespaces, func() {
				reduceAll(objects, name, &namespaces.Items, reducedNamespace)
			})
		},
		"nodes": func(name string) error {
			return l.read(ctx, core, name, false, nodes, func() { reduceAll(objects, name, &nodes.Items, reducedNode) })
		},
		"pods": func(name string) error {
			return l.read(ctx, core, name, true, pods, func() { reduceAll(objects, name, &pods.Items, reducedPod) })
		},
		"networkpolicies": func(name string) error {
			return l.read(ctx, net, name, true, policies, func() {
				reduceAll(objects, name, &policies.Items, reducedPolicy)
			})
		},
	}
	for _, resource := range bundledKinds() {
		switch err := reads[resource](resource); {
		case apierrors.IsForbidden(err):
			r.Missing = append(r.Missing, "no right to list "+resource)
		case err != nil:
			return nil, err
		}
	}
	for _, resource := range l.limited {
		r.Missing = append(r.Missing, fmt.Sprintf("no right to list %s of all namespaces: only those of %s are there",
			resource, l.namespace))
	}
	return objects, nil
}

// reduceAll takes a page.
func reduceAll[T, R any](objects reducedObjects, resource string, page *[]T, reduce func(*T) R) {
	for i := range *page {
		objects.add(resource, reduce(&(*page)[i]))
	}
	*page = nil
}

// ofFiles returns the objects of manifests. Pods of workloads are made up, as for the other commands.
func (c *bundleCommand) ofFiles(r *bundleReport) (reducedObjects, error) {
	if err := c.source.readStdin(); err != nil {
		return nil, err
	}
	loaded, err := manifest.Load(c.source.from)
	if err != nil {
		return nil, err
	}
	for _, d := range loaded.Diagnostics {
		if isError(d) {
			r.Missing = append(r.Missing, d.String())
		}
	}
	all, err := manifest.Objects(c.source.from)
	if err != nil {
		return nil, err
	}
	in, err := complete.Read(c.source.from)
	if err != nil && !errors.Is(err, complete.ErrNoPods) {
		return nil, err
	}
	objects := reducedObjects{}
	for _, o := range all {
		if err := objects.addText(o); err != nil {
			return nil, err
		}
	}
	if in != nil {
		for _, p := range in.Pods {
			objects.add("pods", reducedPod(p))
		}
	}
	return objects, nil
}

// addText adds an object of a file, if a bundle has its kind and it is no pod.
func (r reducedObjects) addText(o manifest.Object) error {
	switch {
	case o.Policy:
		p, err := reducedText(o.JSON)
		if err != nil {
			return err
		}
		r.add("networkpolicies", p)
	case o.APIVersion == "v1" && o.Kind == "Namespace":
		return addReduced(r, "namespaces", o.JSON, reducedNamespace)
	case o.APIVersion == "v1" && o.Kind == "Node":
		return addReduced(r, "nodes", o.JSON, reducedNode)
	}
	return nil
}

func addReduced[T, R any](objects reducedObjects, resource string, text []byte, reduce func(*T) R) error {
	o := new(T)
	if err := json.Unmarshal(text, o); err != nil {
		return fmt.Errorf("decoding %s: %w", resource, err)
	}
	objects.add(resource, reduce(o))
	return nil
}

// bundledParts are what an agent is asked for, and the file for each.
func bundledParts() [][2]string {
	return [][2]string{{"status", "status.json"}, {"metrics", "metrics.txt"}, {"ruleset", "ruleset.nft"}}
}

// askAll asks the agents, so many at the same time, and adds what they answer.
func (c *bundleCommand) askAll(ctx context.Context, list []agentPod, a *archive, patience time.Duration) []bundledNode {
	c.source.say(fmt.Sprintf("asking %d agents", len(list)))
	nodes := make([]bundledNode, len(list))
	for i, dir := range nodeDirs(list) {
		nodes[i] = bundledNode{Node: list[i].Node, Pod: list[i].Key.String(), Dir: dir}
	}
	slots := make(chan struct{}, maxBundled)
	var running sync.WaitGroup
	for i, one := range list {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			nodes[i].Errors = c.ask(ctx, one, a, nodes[i].Dir, patience)
			c.progress(len(list))
		})
	}
	running.Wait()
	return nodes
}

// progress says how many agents were asked, ten times at most.
func (c *bundleCommand) progress(all int) {
	const steps = 10
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	if each := max(all/steps, 1); c.done%each == 0 && all > 1 {
		c.source.say(fmt.Sprintf("%d of %d agents were asked", c.done, all))
	}
}

// nodeDirs returns a directory for each agent. A node may have two for a while.
func nodeDirs(list []agentPod) (dirs []string) {
	taken := map[string]bool{}
	for _, a := range list {
		dir := "nodes/" + fileName(a.Node)
		for n := 2; taken[dir]; n++ {
			dir = fmt.Sprintf("nodes/%s_%d", fileName(a.Node), n)
		}
		taken[dir] = true
		dirs = append(dirs, dir)
	}
	return dirs
}

// ask adds what one agent answers, and returns why something is missing.
func (c *bundleCommand) ask(ctx context.Context, p agentPod, a *archive, dir string,
	patience time.Duration) (errs []string) {
	if !p.Running {
		return []string{fmt.Sprintf("its agent %s does not run", p.Key)}
	}
	for _, part := range bundledParts() {
		text, err := c.part(ctx, p, part[0], patience)
		if len(text) > 0 {
			a.add(dir+"/"+part[1], text)
		}
		if err != nil {
			errs = append(errs, fmt.Sprintf("%s: %v", part[0], err))
		}
	}
	return errs
}

// part returns one part of an agent's answer, also if it is not whole.
func (c *bundleCommand) part(ctx context.Context, p agentPod, what string, patience time.Duration) ([]byte, error) {
	limited, end := context.WithTimeout(ctx, patience)
	defer end()
	w := &bounded{most: c.most, end: end}
	err := c.agents.show(limited, p, what, w)
	text, cut := w.close()
	switch {
	case cut:
		return text, fmt.Errorf("it is longer than %d bytes, the rest is left out", c.most)
	case err == nil && errors.Is(limited.Err(), context.DeadlineExceeded):
		return text, fmt.Errorf("it takes longer than %s; see --request-timeout", patience)
	case err == nil && len(strings.TrimSpace(string(text))) == 0:
		return nil, io.ErrUnexpectedEOF
	}
	return text, err
}
