// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
)

// complete proposes names of pods, workloads, Services and nodes to the shell.
func (s *source) complete(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion,
	cobra.ShellCompDirective) {
	if len(args) >= 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := s.names(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []cobra.Completion
	for _, name := range names {
		if strings.HasPrefix(name, begun) {
			list = append(list, name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// names returns what can be proposed: of files all ends, of a cluster those of the
// namespace, which are read without their content.
func (s *source) names(ctx context.Context) ([]string, error) {
	if s.files() {
		quiet := *s
		quiet.streams.Err = io.Discard
		sc, err := quiet.open(ctx)
		if err != nil {
			return nil, err
		}
		return sc.names(), nil
	}
	namespace, err := s.namespace()
	if err != nil {
		return nil, err
	}
	config, err := s.cluster.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	list := []string{outside, kubelet}
	for resource, kind := range map[string]string{"pods": "", "services": "svc/"} {
		at := client.Resource(corev1.SchemeGroupVersion.WithResource(resource)).Namespace(namespace)
		found, err := at.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range found.Items {
			list = append(list, kind+found.Items[i].Name)
			if name := workloadOf(&found.Items[i].ObjectMeta); name != "" {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// names are references to all ends, those of the own namespace without it.
func (sc *scene) names() []string {
	list := []string{outside, kubelet}
	add := func(kind, namespace, name string) {
		if list = append(list, kind+namespace+"/"+name); namespace == sc.namespace {
			list = append(list, kind+name)
		}
	}
	for _, p := range sc.snap.Pods {
		if add("", p.Key.Namespace, p.Key.Name); sc.workload[p.Key] != "" {
			add("", p.Key.Namespace, sc.workload[p.Key])
		}
	}
	for _, f := range sc.fronts {
		namespace, name, _ := strings.Cut(f.Name, "/")
		add("svc/", namespace, name)
	}
	for _, n := range sc.nodes {
		list = append(list, "node/"+n.Name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
