// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// unpack returns the files of a bundle.
func unpack(t *testing.T, packed []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name, inside := strings.CutPrefix(h.Name, archiveRoot+"/")
		if !inside || !filepath.IsLocal(name) || filepath.Clean(name) != name || files[name] != "" ||
			h.Typeflag != tar.TypeReg || h.Mode != 0o600 {
			t.Errorf("the entry %+v", h)
		}
		files[name] = string(text)
	}
}

func reportOf(t *testing.T, files map[string]string) (r bundleReport) {
	t.Helper()
	if err := json.Unmarshal([]byte(files["bundle.json"]), &r); err != nil || r.Schema != bundleSchema {
		t.Fatalf("bundle.json: %v\n%s", err, files["bundle.json"])
	}
	return r
}

// A bundle of files gives the answers that the files give, and has nothing of a pod that the answers do not
// need.
func TestABundleOfFilesAnswersAsTheFilesDo(t *testing.T) {
	const secret = "hunter2"
	dir := t.TempDir()
	text, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, `
---
apiVersion: v1
kind: Pod
metadata:
  name: db
  namespace: shop
  labels: {app: db}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2, podwall.io/extra-addresses: 10.9.0.1}
spec:
  initContainers: [{name: i, image: hunter2, env: [{name: A, value: hunter2}]}]
  containers: [{name: c, image: hunter2, command: [hunter2], args: [hunter2], env: [{name: A, value: hunter2}],
    envFrom: [{secretRef: {name: hunter2}}], ports: [{containerPort: 5432}]}]
  volumes: [{name: v, secret: {secretName: hunter2}}]
---
{apiVersion: v1, kind: Secret, metadata: {name: hunter2, namespace: shop}, stringData: {a: hunter2}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: hunter2, namespace: shop}, data: {a: hunter2}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: noted, namespace: shop, annotations: {note: hunter2, podwall.io/mode: audit}}
spec: {podSelector: {matchLabels: {app: db}}, ingres: []}
`...)
	in := filepath.Join(dir, "in.yaml")
	if err := os.WriteFile(in, text, 0o600); err != nil {
		t.Fatal(err)
	}
	status, packed, said := commandLine(t, "bundle", "-f", in, "-o", "-")
	files := unpack(t, []byte(packed))
	if diff := cmp.Diff([]string{"bundle.json", "objects/namespaces.json", "objects/networkpolicies.json",
		"objects/nodes.json", "objects/pods.json"}, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("the files (-want +got):\n%s", diff)
	}
	for name, text := range files {
		if strings.Contains(text, secret) && name != "bundle.json" {
			t.Errorf("%s has the secret:\n%s", name, text)
		}
		if name = filepath.Join(dir, filepath.Base(name)); name != filepath.Join(dir, "bundle.json") {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := reportOf(t, files); status != statusNotWritten || len(r.Missing) == 0 || !strings.Contains(said, "ingres") ||
		r.Objects["pods"] != 6 || r.Objects["networkpolicies"] != 3 || len(r.Nodes) != 0 {
		t.Errorf("exit status %d, %+v\n%s", status, r, said)
	}
	for _, part := range []string{`"podwall.io/extra-addresses": "10.9.0.1"`, `"containerPort": 5432`} {
		if !strings.Contains(files["objects/pods.json"], part) {
			t.Errorf("pods.json has no %s", part)
		}
	}
	objects := []string{"-f", dir + "/pods.json", "-f", dir + "/networkpolicies.json", "-f", dir + "/nodes.json", "-f",
		dir + "/namespaces.json"}
	for _, question := range []string{"explain -n shop client web-0", "matrix --by pod --port tcp:8080", "matrix --by pod -o json",
		"can -n shop client db:5432"} {
		args := strings.Fields(question)
		status, want, _ := commandLine(t, append(slices.Clone(args), "-f", in)...)
		status2, got, said := commandLine(t, append(slices.Clone(args), objects...)...)
		if diff := cmp.Diff(want, got); diff != "" || status != status2 || want == "" {
			t.Errorf("%s: exit status %d, of the bundle %d (-files +bundle):\n%s%s", question, status, status2, diff, said)
		}
	}
}

// What agents answer is in the bundle; what is missing is named, and the rest is written.
func TestWhatAgentsAnswerIsInTheBundle(t *testing.T) {
	f := &fakeAgents{pods: []agentPod{node("n1"), node("n1"), node("../n2"), node("n3"), node("..")}, answers: map[string]string{
		"n1 status": "{}", "n1 metrics": "a 1", "n1 ruleset": "table", "../n2 status": "{}", "../n2 metrics": "",
		"../n2 ruleset": strings.Repeat("x", 300), ".. status": "{}", ".. metrics": "b", ".. ruleset": "c"},
		err: errors.New("flag provided but not defined")}
	f.pods[3].Running = false
	var packed bytes.Buffer
	c := &bundleCommand{source: newSource(Streams{Out: &packed, Err: io.Discard}), agents: f, most: 100, now: time.Now}
	a, r := newArchive(&packed, time.Now()), &bundleReport{Schema: bundleSchema}
	r.Nodes = c.askAll(t.Context(), f.pods, a, time.Minute)
	if err := errors.Join(a.addJSON("bundle.json", r), a.close()); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, packed.Bytes())
	if got := slices.Sorted(maps.Keys(files)); len(got) != 12 || files["nodes/n1_2/ruleset.nft"] != "table" {
		t.Errorf("the files %q", got)
	}
	if n := len(files["nodes/.._n2/ruleset.nft"]); n != 100 {
		t.Errorf("a part of 300 bytes has %d", n)
	}
	var errs []string
	for _, n := range reportOf(t, files).Nodes {
		errs = append(errs, n.Errors...)
	}
	if diff := cmp.Diff([]string{"metrics: unexpected EOF", "ruleset: it is longer than 100 bytes, the rest is left out",
		"its agent podwall-system/podwall-n3 does not run"}, errs); diff != "" {
		t.Errorf("what is missing (-want +got):\n%s", diff)
	}
}

// An agent that does not answer holds up nothing, and its name is said.
func TestAnAgentThatHangsIsNamed(t *testing.T) {
	f := &fakeAgents{pods: []agentPod{node("n1")}, hang: true}
	c := &bundleCommand{source: newSource(Streams{Out: io.Discard, Err: io.Discard}), agents: f, most: 100}
	nodes := c.askAll(t.Context(), f.pods, newArchive(io.Discard, time.Now()), 20*time.Millisecond)
	if len(nodes[0].Errors) != 3 || nodes[0].Errors[0] != "status: it takes longer than 20ms; see --request-timeout" {
		t.Errorf("%q", nodes[0].Errors)
	}
}

// A file that exists stays as it is, and one that was begun is removed.
func TestNoFileIsReplacedOrLeftBehind(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, said := commandLine(t, "bundle", "-f", "testdata/shop.yaml", "-o", there)
	if text, err := os.ReadFile(there); status != statusUsage || string(text) != "mine" || !strings.Contains(said, "file exists") {
		t.Errorf("exit status %d, %v, %q\n%s", status, err, text, said)
	}
	fresh := filepath.Join(dir, "fresh")
	if status, _, said := commandLine(t, "bundle", "-f", filepath.Join(dir, "none"), "-o", fresh); status != statusUsage {
		t.Errorf("exit status %d\n%s", status, said)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is left behind: %v", err)
	}
	status, _, said = commandLine(t, "bundle", "-f", "testdata/shop.yaml", "-o", fresh)
	info, err := os.Stat(fresh)
	if status != 0 || err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(said, "is written") {
		t.Errorf("exit status %d, %v, %v\n%s", status, info, err, said)
	}
}

func TestWrongQuestionsForABundle(t *testing.T) {
	for args, want := range map[string]string{"-f testdata/shop.yaml --node n1": "files have no agents",
		"--kubeconfig /nonexistent": "--kubeconfig"} {
		status, out, said := commandLine(t, append([]string{"bundle", "-o", "-"}, strings.Fields(args)...)...)
		if status != statusUsage || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d, %d bytes\n%s", args, status, len(out), said)
		}
	}
}

func TestNamesOfNodesAreNamesOfFiles(t *testing.T) {
	for name, want := range map[string]string{"node-1.a": "node-1.a", "..": "_..", ".": "_.", "": "_", "../../x": ".._.._x",
		"a/b\x1b[": "a_b__", "ä": "_"} {
		if got := fileName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
