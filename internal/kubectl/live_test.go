// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
	"github.com/podwall/podwall/internal/source/manifest"
)

// liveServer is a real API server with the objects of testdata/cluster.yaml.
func liveServer(t *testing.T) *kubeapi.Server {
	t.Helper()
	s := kubeapitest.StartWith(t, kubeapi.Options{Profile: kubeapi.Full,
		Flags: []string{"--service-cluster-ip-range=10.0.0.0/24"}, Users: []string{"tenant=tenant/tenants"}})
	config, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Objects(manifest.From{Paths: []string{"testdata/cluster.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal(o.JSON, u); err != nil {
			t.Fatal(err)
		}
		gv, err := schema.ParseGroupVersion(o.APIVersion)
		if err != nil {
			t.Fatal(err)
		}
		resource := strings.ToLower(o.Kind) + "s"
		if o.Kind == "NetworkPolicy" {
			resource = "networkpolicies"
		}
		var at dynamic.ResourceInterface = client.Resource(gv.WithResource(resource))
		if o.Key.Namespace != "" {
			at = client.Resource(gv.WithResource(resource)).Namespace(o.Key.Namespace)
		}
		made, err := at.Create(t.Context(), u, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("%s %s: %v", o.Kind, o.Key, err)
		}
		if status, ok := u.Object["status"]; ok {
			made.Object["status"] = status
			if _, err := at.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
				t.Fatalf("%s %s: %v", o.Kind, o.Key, err)
			}
		}
	}
	return s
}

// A cluster gives the answers that its objects give as files.
func TestAClusterAnswersAsItsObjectsDo(t *testing.T) {
	s := liveServer(t)
	for _, question := range []string{
		"explain -n shop web-6bd7-x1", "explain shop/client shop/web-6bd7-x2", "explain default/job shop/web-6bd7-x1:8080",
		"explain -n shop client svc/web", "explain -n shop 192.0.2.7 node/node1:30080", "can -n shop kubelet web-6bd7-x1 -o json",
		"can shop/client default/job:53/udp", "explain 10.244.2.11 10.0.0.80:80",
		"explain shop/client 198.51.100.80:80",
	} {
		args := strings.Fields(question)
		status, live, said := commandLine(t, append(args, "--kubeconfig", s.Kubeconfig)...)
		status2, file, said2 := commandLine(t, append(args, "-f", "testdata/cluster.yaml")...)
		if diff := cmp.Diff(file, live); diff != "" || status != status2 || live == "" {
			t.Errorf("%s: exit status %d, of files %d (-files +cluster):\n%s%s%s", question, status, status2, diff, said, said2)
		}
	}
	// A workload is what a controller made pods for.
	status, live, said := commandLine(t, "explain", "-n", "shop", "client", "web", "--kubeconfig", s.Kubeconfig)
	if status != 0 || !strings.Contains(live, "shop/client to shop/web-6bd7-x1 tcp:8080: allowed") {
		t.Errorf("exit status %d\n%s%s", status, live, said)
	}
	// Names for the shell.
	_, names, _ := commandLine(t, "__complete", "explain", "--kubeconfig", s.Kubeconfig, "-n", "shop", "cl")
	if !strings.HasPrefix(names, "client\n:") {
		t.Errorf("completions %q", names)
	}
}

// So do the commands about all pods.
func TestAClusterIsShownAsItsObjectsAre(t *testing.T) {
	s := liveServer(t)
	for _, question := range []string{
		"matrix --port tcp:8080 --host 198.51.100.7", "matrix --by pod -o json", "matrix --by namespace",
		"rules -n shop web-6bd7-x1", "rules -n shop web-6bd7-x1 -o json", "lint", "lint -o json",
		"diff testdata/mended.yaml", "diff testdata/mended.yaml -o json",
	} {
		args := strings.Fields(question)
		status, live, said := commandLine(t, append(args, "--kubeconfig", s.Kubeconfig)...)
		status2, file, said2 := commandLine(t, append(args, "-f", "testdata/cluster.yaml")...)
		live = uid.ReplaceAllString(live, "") // a server gives one to each pod
		if diff := cmp.Diff(file, live); diff != "" || status != status2 || live == "" || status == statusUsage {
			t.Errorf("%s: exit status %d, of files %d (-files +cluster):\n%s%s%s", question, status, status2, diff, said, said2)
		}
	}
}

var uid = regexp.MustCompile(` [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// Names are read without the objects.
func TestNamesOfWorkloadsAndServicesAreProposed(t *testing.T) {
	s := liveServer(t)
	for begun, want := range map[string]string{"w": "web web-6bd7-x1 web-6bd7-x2", "svc/": "svc/web", "out": "outside"} {
		_, names, _ := commandLine(t, "__complete", "can", "--kubeconfig", s.Kubeconfig, "-n", "shop", begun)
		if got := strings.Fields(names); strings.Join(got[:len(got)-1], " ") != want {
			t.Errorf("%s: %q, want %s", begun, got, want)
		}
	}
}

// Who has rights in one namespace only gets answers about it, and is told what is not
// known.
func TestATenantSeesItsNamespace(t *testing.T) {
	s := liveServer(t)
	clients := adminOf(t, s)
	tenant := filepath.Join(filepath.Dir(s.Kubeconfig), "tenant.kubeconfig")
	if _, err := os.Stat(tenant); err != nil {
		t.Fatal(err)
	}
	ask := func() (int, string, string) {
		return commandLine(t, "explain", "-n", "shop", "client", "web", "--kubeconfig", tenant)
	}
	if status, out, said := ask(); status != statusUsage || !strings.Contains(said, "User \"tenant\" cannot list") {
		t.Errorf("without rights: exit status %d\n%s%s", status, out, said)
	}
	grant(t, clients)
	// The API server learns of a right by a watch of its own.
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if status, _, _ := ask(); status != statusUsage {
			break
		}
	}
	status, out, said := ask()
	for _, part := range []string{"only those of shop are known", "no right to list namespaces, nodes: the answer is without them"} {
		if !strings.Contains(strings.Join(strings.Fields(said), " "), part) {
			t.Errorf("%q is not said:\n%s", part, said)
		}
	}
	if status != statusNotWritten || !strings.Contains(out, "allowed by shop/web spec.ingress[0]") {
		t.Errorf("exit status %d\n%s%s", status, out, said)
	}
	status, _, said = commandLine(t, "can", "-n", "shop", "client", "web", "--kubeconfig", "/nonexistent")
	if status != statusUsage || !strings.Contains(said, "--kubeconfig") {
		t.Errorf("without a kubeconfig: exit status %d\n%s", status, said)
	}
}

// adminOf returns clients with all rights.
func adminOf(t *testing.T, s *kubeapi.Server) kubernetes.Interface {
	t.Helper()
	config, err := s.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// grant lets the tenant read its namespace.
func grant(t *testing.T, clients kubernetes.Interface) {
	t.Helper()
	rbac := clients.RbacV1()
	rule := rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"list"}}
	_, err := rbac.Roles("shop").Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "tenant"},
		Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rbac.RoleBindings("shop").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "tenant"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "tenant"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "tenant"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubeapitest.AwaitRights(t, clients, "tenant", "shop", rule)
}
