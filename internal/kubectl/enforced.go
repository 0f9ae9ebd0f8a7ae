// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
)

// enforcedSchema is the form of an agent's answer, as package observe names it.
const enforcedSchema = "podwall.enforced/v1"

// maxEnforced bounds an agent's answer, in bytes.
const maxEnforced = 64 << 10

// enforcedNode is what one agent says about itself.
type enforcedNode struct {
	Schema        string   `json:"schema,omitempty"`
	Node          string   `json:"node"`
	Version       string   `json:"version,omitempty"`
	PolicyVersion string   `json:"policyVersion,omitempty"`
	Ready         bool     `json:"ready"`
	NotReady      []string `json:"notReady,omitempty"`
	Problems      []string `json:"problems,omitempty"`
	Pods          int      `json:"pods"`
	Isolated      int      `json:"isolatedPods"`
	Audited       int      `json:"auditedPods"`
	Held          int      `json:"heldPods"`
	// Error is why there is no answer.
	Error string `json:"error,omitempty"`
}

// reaches reports whether every policy is enforced as it was at a version, or later. Versions of one kind are
// numbers that grow; a server that has others cannot be asked.
func (n enforcedNode) reaches(version uint64) bool {
	has, err := strconv.ParseUint(n.PolicyVersion, 10, 64)
	return n.Error == "" && n.Ready && err == nil && has >= version
}

// lacks says why a node does not enforce a version; empty if it does.
func (n enforcedNode) lacks(version uint64) string {
	switch {
	case n.Error != "":
		return "no answer: " + n.Error
	case n.reaches(version):
		return ""
	case n.PolicyVersion == "":
		return strings.Join(append(n.NotReady, "it enforces no version of the policies yet"), "; ")
	case !n.Ready:
		return "not ready: " + strings.Join(n.NotReady, "; ")
	}
	return "it enforces the policies as they were at resourceVersion " + n.PolicyVersion
}

// askEnforced asks agents, so many at the same time, in the order of the list.
func askEnforced(ctx context.Context, those agents, list []agentPod, patience time.Duration) []enforcedNode {
	nodes := make([]enforcedNode, len(list))
	slots := make(chan struct{}, maxAsked)
	var running sync.WaitGroup
	for i, a := range list {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			nodes[i] = oneEnforced(ctx, those, a, patience)
		})
	}
	running.Wait()
	return nodes
}

func oneEnforced(ctx context.Context, those agents, a agentPod, patience time.Duration) (n enforcedNode) {
	if !a.Running {
		return enforcedNode{Node: a.Node, Error: fmt.Sprintf("its agent %s does not run", a.Key)}
	}
	limited, end := context.WithTimeout(ctx, patience)
	defer end()
	w := &bounded{most: maxEnforced, end: end}
	err := those.show(limited, a, "enforced", w)
	text, cut := w.close()
	switch {
	case cut:
		err = fmt.Errorf("its answer is longer than %d bytes", maxEnforced)
	case err == nil && errors.Is(limited.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it takes longer than %s; see --request-timeout", patience)
	case err == nil:
		if err = json.Unmarshal(text, &n); err == nil && n.Schema != enforcedSchema {
			err = fmt.Errorf("its answer has the schema %q, want %s", n.Schema, enforcedSchema)
		}
	}
	if err != nil {
		return enforcedNode{Node: a.Node, Error: err.Error()}
	}
	n.Schema, n.Node = "", a.Node // it speaks for no other
	return n
}

// clusterFacts reads what agents do not say.
type clusterFacts interface {
	// newest returns the newest resourceVersion of all policies, and how many there are.
	newest(ctx context.Context) (version uint64, policies int, err error)
	// nodes returns the names of all nodes.
	nodes(ctx context.Context) ([]string, error)
	// policy returns the resourceVersion of a policy, and its annotations and those of its namespace, nil if
	// they may not be read.
	policy(ctx context.Context, namespace, name string) (version uint64, own, ofNamespace map[string]string, err error)
}

// metadataFacts reads metadata alone.
type metadataFacts struct{ client metadata.Interface }

func (s *source) facts() (clusterFacts, error) {
	config, err := s.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; %s", err, s.cure())
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return metadataFacts{client}, nil
}

func (m metadataFacts) newest(ctx context.Context) (newest uint64, policies int, err error) {
	at := m.client.Resource(networkingv1.SchemeGroupVersion.WithResource("networkpolicies"))
	err = eachPage(ctx, at, func(o *metav1.PartialObjectMetadata) error {
		version, err := versionNumber(o)
		newest, policies = max(newest, version), policies+1
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("reading networkpolicies: %w", err)
	}
	return newest, policies, nil
}

func (m metadataFacts) nodes(ctx context.Context) (names []string, err error) {
	at := m.client.Resource(corev1.SchemeGroupVersion.WithResource("nodes"))
	err = eachPage(ctx, at, func(o *metav1.PartialObjectMetadata) error {
		names = append(names, o.Name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

func (m metadataFacts) policy(ctx context.Context, namespace, name string) (version uint64, own,
	ofNamespace map[string]string, err error) {
	p, err := m.client.Resource(networkingv1.SchemeGroupVersion.WithResource("networkpolicies")).Namespace(namespace).
		Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return 0, nil, nil, fmt.Errorf("reading the policy: %w", err)
	}
	if version, err = versionNumber(p); err != nil {
		return 0, nil, nil, err
	}
	ns, err := m.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")).Get(ctx, namespace,
		metav1.GetOptions{})
	if err == nil { // without the right it is not known
		ofNamespace = ns.Annotations
	}
	return version, p.Annotations, ofNamespace, nil
}

func versionNumber(o *metav1.PartialObjectMetadata) (uint64, error) {
	n, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the resourceVersion %q of %s/%s is no number: this API server's versions cannot be "+
			"compared", o.ResourceVersion, o.Namespace, o.Name)
	}
	return n, nil
}

// eachPage calls f with each object of a resource.
func eachPage(ctx context.Context, at metadata.ResourceInterface, f func(*metav1.PartialObjectMetadata) error) error {
	o := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := at.List(ctx, o)
		if err != nil {
			return err
		}
		for i := range page.Items {
			if err := f(&page.Items[i]); err != nil {
				return err
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return nil
		}
	}
}

// withoutAgent are the nodes on which no agent is.
func withoutAgent(nodes []string, list []agentPod) (names []string) {
	has := map[string]bool{}
	for _, a := range list {
		has[a.Node] = true
	}
	for _, name := range nodes {
		if !has[name] {
			names = append(names, name)
		}
	}
	return names
}
