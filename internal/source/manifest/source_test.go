// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// start runs a source until the test ends and returns the store that it fills.
func start(t *testing.T, dir string) *cluster.Store {
	t.Helper()
	store := cluster.NewStore()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(dir, slog.New(slog.DiscardHandler)).Run(ctx, store) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
	return store
}

// await waits until the store holds the present content of the directory and
// returns what it then is.
func await(t *testing.T, store *cluster.Store, dir string) (*cluster.Snapshot, cluster.Delta) {
	t.Helper()
	want, err := Digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	limit := time.After(20 * time.Second)
	for {
		if d := store.Take(); d.Source == want {
			return store.Snapshot(), d
		}
		select {
		case <-store.Changed():
		case <-limit:
			t.Fatal("the change did not arrive")
		}
	}
}

func podIPs(s *cluster.Snapshot) string {
	var list []string
	for _, p := range s.Pods {
		list = append(list, p.Key.Name+"="+p.IPs[0].String())
	}
	return strings.Join(list, " ")
}

// replaceFile writes as careful writers do: beside, then renamed.
func replaceFile(t *testing.T, dir, name, text string) {
	t.Helper()
	write(t, dir, ".new", text)
	if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func namedPod(name, ip string) string {
	return strings.NewReplacer("web", name, "10.0.0.1", ip).Replace(pod)
}

func TestSourceFollowsTheDirectory(t *testing.T) {
	dir := t.TempDir()
	store := start(t, dir)
	await(t, store, dir)
	if missing := store.Missing(); missing != nil {
		t.Fatalf("an empty directory leaves %v missing", missing)
	}
	write(t, dir, "a.yaml", namedPod("a", "10.0.0.1"))
	write(t, dir, "b.yaml", namedPod("b", "10.0.0.2"))
	if s, _ := await(t, store, dir); podIPs(s) != "a=10.0.0.1 b=10.0.0.2" {
		t.Errorf("after writing: %s", podIPs(s))
	}
	replaceFile(t, dir, "a.yaml", namedPod("a", "10.0.0.3"))
	if s, d := await(t, store, dir); podIPs(s) != "a=10.0.0.3 b=10.0.0.2" || len(d.Pods) != 1 {
		t.Errorf("after replacing: %s, %d pods changed", podIPs(s), len(d.Pods))
	}
	if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	if s, _ := await(t, store, dir); podIPs(s) != "a=10.0.0.3" {
		t.Errorf("after removing: %s", podIPs(s))
	}
}

func TestBrokenFileKeepsItsLastGoodContent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", namedPod("a", "10.0.0.1"))
	write(t, dir, "bad.yaml", "a: b: c")
	store := start(t, dir)
	s, d := await(t, store, dir)
	if podIPs(s) != "a=10.0.0.1" || len(d.Diagnostics) != 1 || !strings.Contains(d.Diagnostics[0].Message,
		"nothing of the file") {
		t.Fatalf("at start: %s, %v", podIPs(s), d.Diagnostics)
	}
	write(t, dir, "a.yaml", namedPod("a", "10.0.0.2")+"---\n- :")
	write(t, dir, "bad.yaml", namedPod("b", "10.0.0.4"))
	s, d = await(t, store, dir)
	if podIPs(s) != "a=10.0.0.1 b=10.0.0.4" || len(d.Diagnostics) != 1 || d.Diagnostics[0].Field != "a.yaml:7" {
		t.Errorf("after breaking: %s, %v", podIPs(s), d.Diagnostics)
	}
	write(t, dir, "c.yaml", namedPod("c", "10.0.0.5"))
	if s, d = await(t, store, dir); podIPs(s) != "a=10.0.0.1 b=10.0.0.4 c=10.0.0.5" || len(d.Diagnostics) != 1 {
		t.Errorf("after another change: %s, %v", podIPs(s), d.Diagnostics)
	}
	write(t, dir, "a.yaml", namedPod("a", "10.0.0.3"))
	if s, d = await(t, store, dir); podIPs(s) != "a=10.0.0.3 b=10.0.0.4 c=10.0.0.5" || len(d.Diagnostics) != 0 {
		t.Errorf("after repairing: %s, %v", podIPs(s), d.Diagnostics)
	}
}

// TestSwapOfAConfigMapVolume: the kubelet swaps one symbolic link, and every
// file is a link through it.
func TestTheFirstReadIsCompleteOnceEveryFileWasUnderstood(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", namedPod("a", "10.0.0.1"))
	write(t, dir, "bad.yaml", "a: b: c")
	store := start(t, dir)
	await(t, store, dir)
	if missing := store.Missing(); len(missing) != len(cluster.Kinds()) {
		t.Errorf("with a file that was never understood %v are missing, want every kind", missing)
	}
	write(t, dir, "bad.yaml", namedPod("b", "10.0.0.4"))
	await(t, store, dir)
	if missing := store.Missing(); missing != nil {
		t.Errorf("with every file understood %v are missing", missing)
	}
	write(t, dir, "later.yaml", "a: b: c")
	await(t, store, dir)
	if missing := store.Missing(); missing != nil {
		t.Errorf("a later broken file makes %v missing", missing)
	}
}

func TestSwapOfAConfigMapVolume(t *testing.T) {
	dir := t.TempDir()
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for version, ip := range map[string]string{"..v1": "10.0.0.1", "..v2": "10.0.0.2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version), "a.yaml", namedPod("a", ip))
	}
	link("..v1", "..data")
	link("..data/a.yaml", "a.yaml")
	store := start(t, dir)
	if s, _ := await(t, store, dir); podIPs(s) != "a=10.0.0.1" {
		t.Fatalf("at start: %s", podIPs(s))
	}
	link("..v2", "..tmp")
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if s, _ := await(t, store, dir); podIPs(s) != "a=10.0.0.2" {
		t.Errorf("after the swap: %s", podIPs(s))
	}
}

func TestSourceNeedsItsDirectoryAtStart(t *testing.T) {
	store := cluster.NewStore()
	err := New(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler)).Run(t.Context(), store)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
	if len(store.Missing()) != len(cluster.Kinds()) {
		t.Error("the store counts as complete")
	}
}

func TestDirectoryThatGoesAwayChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.yaml", pod)
	store := cluster.NewStore()
	s := New(dir, slog.New(slog.DiscardHandler))
	if err := s.sync(store); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(store); err == nil {
		t.Error("the missing directory is no error")
	}
	if n := len(store.Snapshot().Pods); n != 1 {
		t.Errorf("%d pods are left", n)
	}
}

func TestSameContentIsNoChange(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", pod)
	store := cluster.NewStore()
	for range 2 {
		if err := New(dir, slog.New(slog.DiscardHandler)).sync(store); err != nil {
			t.Fatal(err)
		}
	}
	if r := store.Snapshot().Revision; r != 1 {
		t.Errorf("the store is at revision %d", r)
	}
}

func TestDigest(t *testing.T) {
	of := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			write(t, dir, name, text)
		}
		d, err := Digest(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := of(map[string]string{"a.yaml": "x", "b.yaml": "w"})
	if of(map[string]string{"b.yaml": "w", "a.yaml": "x", "c.txt": "", ".d.yaml": ""}) != base {
		t.Error("files that are not read change the digest")
	}
	for name, other := range map[string]map[string]string{
		"content": {"a.yaml": "x", "b.yaml": "v"}, "name": {"a.yaml": "x", "c.yaml": "w"}, "file": {"a.yaml": "x"},
	} {
		if of(other) == base {
			t.Errorf("a changed %s does not change the digest", name)
		}
	}
}

func TestNodesAndTheDirectoryItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	store, source := cluster.NewStore(), New(dir, slog.New(slog.DiscardHandler))
	if err := source.sync(store); err != nil {
		t.Fatal(err)
	}
	if len(store.Nodes()) != 0 {
		t.Errorf("an empty directory has the Nodes %v", store.Nodes())
	}
	write(t, dir, "n.yaml", "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}")
	if err := source.sync(store); err != nil {
		t.Fatal(err)
	}
	if n := store.Node("n1"); n == nil || len(n.Addrs) != 1 {
		t.Errorf("the Node is %v", n)
	}
	if f := source.Feeds(); len(f) != 1 || !f[0].Connected || f[0].Heard.IsZero() {
		t.Errorf("the feeds are %+v", f)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := source.sync(store); err == nil || source.Feeds()[0].Connected || source.Feeds()[0].Err == "" {
		t.Errorf("without the directory: %v, feeds %+v", err, source.Feeds())
	}
}
