// SPDX-License-Identifier: Apache-2.0

//go:build linux

package deploy

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
	"github.com/podwall/podwall/internal/source/kube"
	"github.com/podwall/podwall/internal/uninstall"
)

// serve starts an API server with RBAC, and returns a client with all rights.
func serve(t *testing.T) (*kubeapi.Server, *rest.Config, *rest.RESTClient) {
	t.Helper()
	s := kubeapitest.StartWith(t, kubeapi.Options{Profile: kubeapi.Full, Flags: []string{"--allow-privileged=true"}})
	cfg, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.NegotiatedSerializer = &schema.GroupVersion{}, serializer.NewCodecFactory(scheme.Scheme)
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	return s, cfg, client
}

// create has the API server check every field and admit the object, and keep it
// unless it is a dry run.
func create(t *testing.T, client *rest.RESTClient, d document, dry bool) error {
	t.Helper()
	data, err := yaml.YAMLToJSON(d.text)
	if err != nil {
		t.Fatal(err)
	}
	path := "/apis/" + d.APIVersion
	if !strings.Contains(d.APIVersion, "/") {
		path = "/api/" + d.APIVersion
	}
	if d.Namespace != "" {
		path += "/namespaces/" + d.Namespace
	}
	path += "/" + strings.ToLower(d.Kind) + "s"
	post := client.Post().AbsPath(path).Param("fieldValidation", "Strict").SetHeader("Content-Type", "application/json").Body(data)
	if dry {
		post.Param("dryRun", "All")
	}
	return post.Do(t.Context()).Error()
}

// foreign kinds are of CRDs that a cluster may have.
func foreign(d document) bool {
	return slices.Contains([]string{"ServiceMonitor", "PrometheusRule", "SecurityContextConstraints"}, d.Kind)
}

func TestManifestsAndRoleOnAnAPIServer(t *testing.T) {
	_, cfg, client := serve(t)
	for _, file := range []string{tkeFile, takeOver, everyOption, everyHook, cleanFile, plainFile, hooksFile} {
		for _, d := range documents(t, file) {
			// What is made for real is what the others need, and the last two files.
			dry := file != plainFile && file != hooksFile && d.Kind != "Namespace"
			err := create(t, client, d, dry)
			if err != nil && !foreign(d) && !(d.Kind == "Namespace" && apierrors.IsAlreadyExists(err)) {
				t.Errorf("%s: %s %s: %v", file, d.Kind, d.Name, err)
			}
		}
	}
	t.Run("pods are admitted where the namespace has the label only", func(t *testing.T) { checkAdmission(t, client) })
	t.Run("the role is what the agent asks for", func(t *testing.T) { checkRole(t, cfg, client) })
	t.Run("the Jobs of uninstalling have the rights that they need", func(t *testing.T) { checkUninstall(t, cfg, client) })
}

// checkAdmission makes the pod of the DaemonSet, which the controller of a real
// cluster would do. docs/operate.md quotes the refusal.
func checkAdmission(t *testing.T, client *rest.RESTClient) {
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: daemonSet(t, plainFile).Spec.Template.Spec}
	pod.Name = "one"
	other := corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
	other.Name, other.Labels = "baseline", map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}
	if err := create(t, client, written(t, other.TypeMeta, other.ObjectMeta, other), false); err != nil {
		t.Fatal(err)
	}
	for namespace, admitted := range map[string]bool{"podwall-system": true, other.Name: false} {
		pod.Namespace = namespace
		err := create(t, client, written(t, pod.TypeMeta, pod.ObjectMeta, pod), true)
		if admitted != (err == nil) || !admitted && !strings.Contains(err.Error(), `violates PodSecurity "baseline:latest"`) {
			t.Errorf("in namespace %s: %v", namespace, err)
		}
		if !admitted {
			t.Log(err)
		}
	}
}

func written(t *testing.T, kind metav1.TypeMeta, meta metav1.ObjectMeta, o any) document {
	t.Helper()
	text, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return document{metav1.PartialObjectMetadata{TypeMeta: kind, ObjectMeta: meta}, text}
}

// requests notes the rights that requests need.
type requests struct {
	next http.RoundTripper
	mu   sync.Mutex // guards seen
	seen map[string]bool
}

// WrappedRoundTripper lets others find the transport below.
func (r *requests) WrappedRoundTripper() http.RoundTripper { return r.next }

func (r *requests) RoundTrip(q *http.Request) (*http.Response, error) {
	parts := strings.Split(strings.Trim(q.URL.Path, "/"), "/")
	group, resource := "", parts[len(parts)-1]
	if parts[0] == "apis" {
		group = parts[1]
	}
	verb := map[bool]string{false: "list", true: "watch"}[q.URL.Query().Get("watch") == "true"]
	if q.Method != http.MethodGet {
		verb = map[string]string{http.MethodPost: "create"}[q.Method]
	}
	r.mu.Lock()
	r.seen[group+"/"+resource+" "+verb] = true
	r.mu.Unlock()
	return r.next.RoundTrip(q)
}

// checkRole: the role gives what the agent asks for and nothing else, and the agent as this
// ServiceAccount sees everything.
func checkRole(t *testing.T, cfg *rest.Config, client *rest.RESTClient) {
	node := corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	policy := networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "podwall-system"}}
	for _, d := range []document{written(t, node.TypeMeta, node.ObjectMeta, node), written(t, policy.TypeMeta, policy.ObjectMeta, policy)} {
		d.Kind = strings.ReplaceAll(d.Kind, "Policy", "Policie") // of which create makes the plural
		if err := create(t, client, d, false); err != nil {
			t.Fatal(err)
		}
	}
	seen := &requests{seen: map[string]bool{}}
	as := rest.CopyConfig(cfg)
	as.Impersonate.UserName = "system:serviceaccount:podwall-system:podwall"
	as.Wrap(func(next http.RoundTripper) http.RoundTripper {
		seen.next = next
		return seen
	})
	store := cluster.NewStore()
	source := kube.New(as, slog.New(slog.DiscardHandler)).OnNode("node1")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, store) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await(t, func() bool { return len(store.Missing()) == 0 })
	await(t, func() bool {
		for _, f := range source.Feeds() {
			if !f.Connected {
				return false
			}
		}
		return true
	})
	key := cluster.Key{Namespace: policy.Namespace, Name: policy.Name}
	await(t, func() bool { return store.Policy(key) != nil })
	source.Announce(key, []cluster.Diagnostic{{Severity: cluster.Warning, Kind: "NetworkPolicy", Object: key, Message: "odd"}})
	await(t, func() bool {
		events := client.Get().AbsPath("/api/v1/namespaces/podwall-system/events")
		text, err := events.Do(t.Context()).Raw()
		return err == nil && strings.Contains(string(text), `"message":"odd"`)
	})
	// A list follows a watch only where the server streams none, and before a watch
	// that goes on where another one ended; package kube has the tests of both.
	granted := map[string]bool{}
	for _, rule := range object[rbacv1.ClusterRole](t, plainFile, "ClusterRole").Rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				granted[rule.APIGroups[0]+"/"+resource+" "+verb] = true
			}
		}
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for right := range granted {
		if watch := strings.Replace(right, " list", " watch", 1); !seen.seen[watch] {
			t.Errorf("%s is granted and never asked for", right)
		}
	}
	for right := range seen.seen {
		if !granted[right] {
			t.Errorf("%s is asked for and not granted; granted are %v", right, slices.Sorted(maps.Keys(granted)))
		}
	}
}

// checkUninstall does what the Jobs do, as their ServiceAccount. A controller of a
// real cluster would write the status.
func checkUninstall(t *testing.T, cfg *rest.Config, client *rest.RESTClient) {
	const status = `{"status": {"observedGeneration": 1, "desiredNumberScheduled": 1, "numberReady": 1,
		"currentNumberScheduled": 1, "numberMisscheduled": 0}}`
	as := rest.CopyConfig(cfg)
	as.Impersonate.UserName = "system:serviceaccount:podwall-system:podwall-uninstall"
	var out strings.Builder
	c, err := uninstall.New(as, "podwall-system", &out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.StopAgents(ctx); !errors.Is(err, uninstall.ErrNotHelms) {
		t.Errorf("stopping agents that helm did not install: %v", err)
	}
	mark := `{"metadata": {"annotations": {"meta.helm.sh/release-name": "podwall"}}}`
	path := "/apis/apps/v1/namespaces/podwall-system/daemonsets/podwall"
	if err := client.Patch(types.MergePatchType).AbsPath(path).Body([]byte(mark)).Do(ctx).Error(); err != nil {
		t.Fatal(err)
	}
	if err := c.StopAgents(ctx); err != nil {
		t.Errorf("stopping the agents: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := c.AwaitNodes(short); !errors.Is(err, uninstall.ErrNotAll) || !strings.Contains(err.Error(), "is new") {
		t.Errorf("waiting for nodes that nobody cleans: %v", err)
	}
	sets := "/apis/apps/v1/namespaces/podwall-system/daemonsets/"
	for _, path := range []string{"/api/v1/nodes", "/api/v1/namespaces/podwall-system/pods"} { // to name what is left
		if err := client.Get().AbsPath(path).SetHeader("Impersonate-User", as.Impersonate.UserName).Do(t.Context()).Error(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	patch := client.Patch(types.MergePatchType).AbsPath(sets + uninstall.Cleaner + "/status").Body([]byte(status))
	if err := patch.Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitNodes(ctx); err != nil {
		t.Errorf("waiting for nodes that are clean: %v", err)
	}
	for _, name := range []string{uninstall.Agents, uninstall.Cleaner} {
		if err := client.Get().AbsPath(sets + name).Do(t.Context()).Error(); !apierrors.IsNotFound(err) {
			t.Errorf("DaemonSet %s: %v, want that it is gone", name, err)
		}
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come true within a minute")
		}
	}
}
