// SPDX-License-Identifier: Apache-2.0

//go:build linux

package deploy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/lab/kubeapi"
)

const (
	chart    = "../../deploy/chart/podwall"
	agentSet = "/apis/apps/v1/namespaces/podwall-system/daemonsets/podwall"
)

// helm runs the program helm as an operator does, with all rights at an API server.
type helm struct {
	program, kubeconfig, home string
}

func newHelm(t *testing.T, s *kubeapi.Server) helm {
	t.Helper()
	program, err := filepath.Abs("../../bin/helm")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("run `make helm`: %v", err)
	}
	if err != nil {
		t.Fatalf("run `make helm`: %v", err)
	}
	return helm{program, s.Kubeconfig, t.TempDir()}
}

func (h helm) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.program, append(args, "--namespace=podwall-system")...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HOME="+h.home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h helm) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.run(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused wants helm to fail and to say why.
func (h helm) refused(t *testing.T, why string, args ...string) {
	t.Helper()
	out, err := h.run(t, args...)
	if err == nil || !strings.Contains(out, why) {
		t.Errorf("helm %s: %v, want a refusal that says %q:\n%s", strings.Join(args, " "), err, why, out)
	}
}

// installed reads the agents' DaemonSet.
func installed(t *testing.T, client *rest.RESTClient) (ds appsv1.DaemonSet) {
	t.Helper()
	if err := client.Get().AbsPath(agentSet).Do(t.Context()).Into(&ds); err != nil {
		t.Fatal(err)
	}
	return ds
}

// The steps of docs/install.md and docs/operate.md with the program helm. Without
// controllers there are no pods; test/cluster has what needs them.
func TestHelmOnAnAPIServer(t *testing.T) {
	s, _, client := serve(t)
	h := newHelm(t, s)
	t.Run("the notes warn where no agent is admitted", func(t *testing.T) { warned(t, h, client) })
	t.Run("install, upgrade, rollback, uninstall", func(t *testing.T) { cycle(t, h, client) })
	t.Run("helm takes over what kubectl applied", func(t *testing.T) { takenOver(t, h, client) })
}

// warned leaves a namespace that admits agents.
func warned(t *testing.T, h helm, client *rest.RESTClient) {
	const label = `{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}`
	ns := corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
	ns.Name, ns.Labels = "podwall-system", map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}
	if err := create(t, client, written(t, ns.TypeMeta, ns.ObjectMeta, ns), false); err != nil {
		t.Fatal(err)
	}
	const warning = "WARNING: namespace podwall-system admits pods of level baseline only"
	if out := h.must(t, "install", "podwall", chart); !strings.Contains(out, warning) {
		t.Errorf("the notes are\n%s", out)
	}
	h.must(t, "uninstall", "podwall")
	patch := client.Patch(types.MergePatchType).AbsPath("/api/v1/namespaces/podwall-system").Body([]byte(label))
	if err := patch.Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

func cycle(t *testing.T, h helm, client *rest.RESTClient) {
	h.refused(t, "'logLevle'", "install", "podwall", chart, "--set", "agent.logLevle=1")
	if out := h.must(t, "install", "podwall", chart); !strings.Contains(out, "enforces NetworkPolicy") || strings.Contains(out, "WARNING") {
		t.Errorf("the notes are\n%s", out)
	}
	want := contents(t, documents(t, plainFile))
	delete(want, "Namespace podwall-system")
	if diff := cmp.Diff(want, contents(t, split(t, h.must(t, "get", "manifest", "podwall")))); diff != "" {
		t.Errorf("%s and what helm installs (-file +helm):\n%s", plainFile, diff)
	}
	first := installed(t, client)
	if first.Annotations["meta.helm.sh/release-name"] != "podwall" { // without it no hook uninstalls
		t.Errorf("helm did not mark what it installed: %v", first.Annotations)
	}
	h.refused(t, "exists and cannot be imported", "install", "other", chart) // there is one agent on a node

	h.must(t, "upgrade", "podwall", chart, "--reuse-values", "--set", "uninstall.enabled=true")
	if second := installed(t, client); second.Generation != first.Generation {
		t.Errorf("asking for the hooks that uninstall replaces agents: generation %d, was %d", second.Generation, first.Generation)
	}
	h.must(t, "upgrade", "podwall", chart, "--set", "agent.logLevel=1,uninstall.enabled=true")
	if got := args(installed(t, client)); !strings.Contains(got, "-v=1") || strings.Contains(args(first), "-v=1") {
		t.Errorf("the changed value does not arrive: %s", got)
	}
	h.must(t, "rollback", "podwall", "1")
	if got := args(installed(t, client)); got != args(first) {
		t.Errorf("after a rollback the arguments are %s, want %s", got, args(first))
	}
	if left := ours(t, client, "/apis/batch/v1/namespaces/podwall-system/jobs"); len(left) > 0 {
		t.Errorf("an upgrade ran hooks that uninstall: %v", left)
	}
	h.must(t, "uninstall", "podwall")
	for _, path := range []string{"/apis/apps/v1/namespaces/podwall-system/daemonsets",
		"/api/v1/namespaces/podwall-system/serviceaccounts", "/api/v1/namespaces/podwall-system/secrets",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"} {
		if left := ours(t, client, path); len(left) > 0 {
			t.Errorf("helm uninstall left %v", left)
		}
	}
}

// takenOver: nothing changes but the marks of helm, so no agent is replaced.
func takenOver(t *testing.T, h helm, client *rest.RESTClient) {
	for _, d := range documents(t, plainFile) {
		if d.Kind != "Namespace" {
			if err := create(t, client, d, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := installed(t, client)
	h.refused(t, "exists and cannot be imported", "install", "podwall", chart)
	h.must(t, "install", "podwall", chart, "--take-ownership", "--server-side=false")
	after := installed(t, client)
	if after.Generation != before.Generation || after.UID != before.UID {
		t.Errorf("helm changed the DaemonSet: generation %d, was %d", after.Generation, before.Generation)
	}
	if after.Annotations["meta.helm.sh/release-name"] != "podwall" {
		t.Errorf("helm did not mark what it took over: %v", after.Annotations)
	}
	h.must(t, "upgrade", "podwall", chart, "--set", "agent.logLevel=1")
	if got := args(installed(t, client)); !strings.Contains(got, "-v=1") {
		t.Errorf("the changed value does not arrive: %s", got)
	}
}

func args(ds appsv1.DaemonSet) string {
	return strings.Join(ds.Spec.Template.Spec.Containers[0].Args, " ")
}

// contents are objects by kind and name, without comments.
func contents(t *testing.T, list []document) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, d := range list {
		var o map[string]any
		if err := yaml.Unmarshal(d.text, &o); err != nil {
			t.Fatal(err)
		}
		all[d.Kind+" "+d.Name] = o
	}
	return all
}

// ours lists the objects of podwall, and of helm for it, in a collection.
func ours(t *testing.T, client *rest.RESTClient, path string) (names []string) {
	t.Helper()
	text, err := client.Get().AbsPath(path).Do(t.Context()).Raw()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var list metav1.PartialObjectMetadataList
	if err := yaml.Unmarshal(text, &list); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, o := range list.Items {
		if strings.Contains(o.Name, "podwall") {
			names = append(names, o.Name)
		}
	}
	return names
}
