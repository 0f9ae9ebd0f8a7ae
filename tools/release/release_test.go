// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/podwall/podwall/tools/internal/programs"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// small is the file of a program that stands for all of podwall's: packing those
// takes seconds each.
var small string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podwall-release-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := buildSmall(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func buildSmall(dir string) error {
	source := filepath.Join(dir, "cmd", "small")
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	err := errors.Join(os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.org/small\n"), 0o644),
		os.WriteFile(filepath.Join(source, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o644))
	small = filepath.Join(dir, "small")
	return errors.Join(err,
		programs.Build(context.Background(), dir, "v1", programs.Linux(runtime.GOARCH), dir, "small"))
}

// prepared returns options for a release whose programs and images are there.
func prepared(t *testing.T) options {
	t.Helper()
	o := options{root: "../..", images: t.TempDir(), out: filepath.Join(t.TempDir(), "dist"), version: "v1.2.3", tag: "1.2.3", revision: "abc",
		created: time.Unix(1700000000, 0).UTC(), log: t.Output()}
	for _, s := range programs.Systems() {
		dir := filepath.Join(o.images, s.String())
		check(t, os.Mkdir(dir, 0o755))
		for _, program := range programs.Released(s) {
			check(t, os.Symlink(small, filepath.Join(dir, s.File(program))))
		}
	}
	for _, arch := range programs.Architectures() {
		writeImage(t, o, arch)
		check(t, os.WriteFile(filepath.Join(o.images, "podwall-"+arch+".spdx.json"), []byte("{}"), 0o644))
	}
	return o
}

func writeImage(t *testing.T, o options, arch string) {
	t.Helper()
	img, err := mutate.Config(empty.Image, v1.Config{Labels: map[string]string{
		"org.opencontainers.image.version": o.version, "org.opencontainers.image.revision": o.revision}})
	check(t, err)
	tag, err := name.NewTag("podwall/podwall:" + o.tag)
	check(t, err)
	check(t, tarball.WriteToFile(filepath.Join(o.images, "podwall-"+arch+".tar"), tag, img))
}

// released publishes all but the chart and the licences.
func released(t *testing.T, o options) map[string][]byte {
	t.Helper()
	check(t, o.check())
	var files []content
	for _, s := range programs.Systems() {
		list, err := o.forSystem(s, modules{})
		check(t, err)
		files = append(files, list...)
	}
	for _, arch := range programs.Architectures() {
		list, err := o.imageFor(arch)
		check(t, err)
		files = append(files, list...)
	}
	index, err := o.krew(files)
	check(t, err)
	files = append(files, index...)
	check(t, o.publish(t.Context(), files))
	got := map[string][]byte{}
	entries, err := os.ReadDir(o.out)
	check(t, err)
	for _, e := range entries {
		got[e.Name()], err = os.ReadFile(filepath.Join(o.out, e.Name()))
		check(t, err)
	}
	return got
}

func TestAReleaseIsWholeAndVouchedFor(t *testing.T) {
	o := prepared(t)
	o.builder, o.url = "https://example.org/builder", "https://example.org/v1.2.3"
	got := released(t, o)
	want := []string{"krew-podwall.yaml", "kubectl-podwall-v1.2.3-darwin-amd64.tar.gz",
		"kubectl-podwall-v1.2.3-darwin-arm64.tar.gz", "kubectl-podwall-v1.2.3-windows-amd64.zip"}
	for _, s := range programs.Systems() {
		want = append(want, "podwall-v1.2.3-"+s.String()+".spdx.json")
	}
	for _, arch := range programs.Architectures() {
		want = append(want, "podwall-agent-v1.2.3-linux-"+arch, "podwall-gate-v1.2.3-linux-"+arch, "podwall-lab-v1.2.3-linux-"+arch,
			"kubectl-podwall-v1.2.3-linux-"+arch+".tar.gz", "podwall-image-v1.2.3-"+arch+".tar",
			"podwall-image-v1.2.3-"+arch+".spdx.json")
	}
	statement := "podwall-v1.2.3.provenance.json"
	wantSubjects(t, got[statement], got, want)
	want = append(want, statement)
	slices.Sort(want)
	var text strings.Builder
	for _, file := range want {
		sum := sha256.Sum256(got[file])
		text.WriteString(hex.EncodeToString(sum[:]) + "  " + file + "\n")
	}
	if string(got[sums]) != text.String() {
		t.Errorf("checksums:\n%swant:\n%s", got[sums], &text)
	}
	if len(got) != len(want)+1 {
		t.Errorf("%d files, want %d and the checksums", len(got), len(want))
	}
	info, err := os.Stat(filepath.Join(o.out, "podwall-agent-v1.2.3-linux-arm64"))
	check(t, err)
	if info.Mode().Perm()&0o111 != 0o111 {
		t.Errorf("a program has mode %s", info.Mode())
	}
	again := released(t, o) // it replaces the first
	if !bytes.Equal(again[sums], got[sums]) {
		t.Error("the same release has other checksums the second time")
	}
}

// wantSubjects compares what a statement is about with files.
func wantSubjects(t *testing.T, statement []byte, files map[string][]byte, names []string) {
	t.Helper()
	var s struct {
		Type    string `json:"_type"`
		Subject []struct {
			Name   string
			Digest struct{ SHA256 string }
		}
		PredicateType string
		Predicate     struct {
			BuildDefinition struct {
				ExternalParameters   struct{ URL string }
				ResolvedDependencies []struct{ Digest struct{ GitCommit string } }
			}
			RunDetails struct{ Builder struct{ ID string } }
		}
	}
	check(t, json.Unmarshal(statement, &s))
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://slsa.dev/provenance/v1" {
		t.Errorf("a statement of type %q and %q", s.Type, s.PredicateType)
	}
	p := s.Predicate
	if p.RunDetails.Builder.ID != "https://example.org/builder" || p.BuildDefinition.ResolvedDependencies[0].Digest.GitCommit != "abc" {
		t.Errorf("built by %q from %v", p.RunDetails.Builder.ID, p.BuildDefinition.ResolvedDependencies)
	}
	if got := p.BuildDefinition.ExternalParameters.URL; got != "https://example.org/v1.2.3" {
		t.Errorf("the statement has the address %q: the manifest for krew cannot be built again", got)
	}
	var subjects []string
	for _, f := range s.Subject {
		subjects = append(subjects, f.Name)
		if sum := sha256.Sum256(files[f.Name]); f.Digest.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s has digest %s", f.Name, f.Digest.SHA256)
		}
	}
	slices.Sort(subjects)
	if names = slices.Sorted(slices.Values(names)); !slices.Equal(subjects, names) {
		t.Errorf("the statement is about %q, want %q", subjects, names)
	}
}

func TestTheSignatureHolds(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ssh-keygen is missing: see hack/prepare")
		}
		t.Skip("ssh-keygen is missing: install openssh-client")
	}
	o := prepared(t)
	dir := t.TempDir()
	o.key = filepath.Join(dir, "key")
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", o.key).CombinedOutput()
	if err != nil {
		t.Fatalf("making a key: %v: %s", err, out)
	}
	got := released(t, o)
	public, err := os.ReadFile(o.key + ".pub")
	check(t, err)
	signers := filepath.Join(dir, "signers")
	check(t, os.WriteFile(signers, []byte("releases@podwall "+string(public)), 0o644))
	signature := filepath.Join(o.out, sums+".sig")
	for _, tt := range []struct {
		name, purpose string
		text          []byte
		holds         bool
	}{
		{"as it is", purpose, got[sums], true},
		{"for something else", "git", got[sums], false},
		{"of another text", purpose, append(slices.Clone(got[sums]), "0  more\n"...), false},
	} {
		cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-Y", "verify", "-f", signers, "-I", "releases@podwall",
			"-n", tt.purpose, "-s", signature)
		cmd.Stdin = bytes.NewReader(tt.text)
		if out, err := cmd.CombinedOutput(); (err == nil) != tt.holds {
			t.Errorf("%s: %v, %s, want that it holds: %t", tt.name, err, out, tt.holds)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	foreign := t.TempDir()
	check(t, os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o644))
	for want, change := range map[string]func(o *options){
		"letters, digits":          func(o *options) { o.version = "v1;rm" },
		"is not signed":            func(o *options) { o.key, o.version = "key", "v1.2.3-dirty" },
		"from a clean tree":        func(o *options) { o.key, o.revision = "key", "" },
		"it is no earlier release": func(o *options) { o.out = foreign },
		"want https://HOST/PATH":   func(o *options) { o.url = "example.org/v1.2.3" },
		"vMAJOR.MINOR.PATCH":       func(o *options) { o.url, o.version = "https://example.org/v1", "abcdef" },
	} {
		o := prepared(t)
		o.root = t.TempDir() // what is not refused is not built for minutes either
		change(&o)
		if err := o.run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(foreign, "thesis.txt")); err != nil {
		t.Error("a directory of somebody else was emptied")
	}
}

func TestWhatAnEarlierBuildLeftIsRefused(t *testing.T) {
	for what, change := range map[string]func(o *options){
		"version":  func(o *options) { o.version = "v1.2.4" },
		"revision": func(o *options) { o.revision = "abd" },
		"tag":      func(o *options) { o.tag = "1.2.4" },
	} {
		o := prepared(t)
		change(&o)
		_, err := o.imageFor("amd64")
		if err == nil || !strings.Contains(err.Error(), "make image") {
			t.Errorf("another %s: %v, want what to do", what, err)
		}
	}
}

func TestNoFileReplacesAnother(t *testing.T) {
	o := prepared(t)
	twice := []content{{"podwall.yaml", 0o644, nil}, {"LICENSE", 0o644, nil}, {"podwall.yaml", 0o644, []byte("b")}}
	if err := o.publish(t.Context(), twice); err == nil || !strings.Contains(err.Error(), "podwall.yaml") {
		t.Errorf("%v, want an error that names the file", err)
	}
}
