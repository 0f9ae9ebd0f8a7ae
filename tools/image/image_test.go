// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/podwall/podwall/tools/internal/programs"
)

func eachArchitecture(t *testing.T, test func(t *testing.T, arch string)) {
	for _, arch := range programs.Architectures() {
		t.Run(arch, func(t *testing.T) { test(t, arch) })
	}
}

func tarOf(arch string) string { return filepath.Join(made, "podwall-"+arch+".tar") }

// entry is a member of a tar archive.
type entry struct {
	header tar.Header
	text   []byte
}

func entries(t *testing.T, r io.Reader) map[string]entry {
	t.Helper()
	whole, err := io.ReadAll(r)
	check(t, err)
	if !bytes.HasSuffix(whole, make([]byte, 1024)) {
		t.Error("the archive does not end as one: tar calls it cut off")
	}
	all := map[string]entry{}
	last := ""
	for a := tar.NewReader(bytes.NewReader(whole)); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		check(t, err)
		if h.Name <= last {
			t.Errorf("%s comes after %s: the names are not sorted", h.Name, last)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s belongs to %d:%d and is of %s, want root and 1970", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		text, err := io.ReadAll(a)
		check(t, err)
		all[h.Name], last = entry{*h, text}, h.Name
	}
}

// asDocker reads the image as a docker-archive.
func asDocker(t *testing.T, arch string) v1.Image {
	t.Helper()
	tag, err := name.NewTag("podwall/podwall:" + testTag)
	check(t, err)
	img, err := tarball.ImageFromPath(tarOf(arch), &tag)
	check(t, err)
	return img
}

// asOCI reads the image as an OCI layout.
func asOCI(t *testing.T, arch string) (v1.Image, v1.Descriptor) {
	t.Helper()
	f, err := os.Open(tarOf(arch))
	check(t, err)
	defer f.Close()
	dir := t.TempDir()
	for name, e := range entries(t, f) {
		to := filepath.Join(dir, name)
		if e.header.Typeflag == tar.TypeDir {
			check(t, os.MkdirAll(to, 0o755))
			continue
		}
		check(t, os.MkdirAll(filepath.Dir(to), 0o755))
		check(t, os.WriteFile(to, e.text, 0o600))
	}
	index, err := layout.ImageIndexFromPath(dir)
	check(t, err)
	check(t, validate.Index(index))
	list, err := index.IndexManifest()
	check(t, err)
	if len(list.Manifests) != 1 {
		t.Fatalf("%d images in the archive, want 1", len(list.Manifests))
	}
	img, err := index.Image(list.Manifests[0].Digest)
	check(t, err)
	return img, list.Manifests[0]
}

// unpacked returns all that a container sees.
func unpacked(t *testing.T, arch string) map[string]entry {
	t.Helper()
	img, _ := asOCI(t, arch)
	layers, err := img.Layers()
	check(t, err)
	all := map[string]entry{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		check(t, err)
		maps.Copy(all, entries(t, r))
		check(t, r.Close())
	}
	return all
}

func TestTheArchiveIsTwoThingsAtOnce(t *testing.T) {
	eachArchitecture(t, func(t *testing.T, arch string) {
		docker := asDocker(t, arch)
		oci, descriptor := asOCI(t, arch)
		check(t, errors.Join(validate.Image(docker), validate.Image(oci)))
		a, err := docker.ConfigName()
		check(t, err)
		b, err := oci.ConfigName()
		check(t, err)
		if a != b {
			t.Errorf("docker-archive has image %s, OCI layout %s", a, b)
		}
		if p := descriptor.Platform; p.OS != "linux" || p.Architecture != arch {
			t.Errorf("platform %s", p)
		}
		want := map[string]string{"io.containerd.image.name": "docker.io/podwall/podwall:" + testTag,
			"org.opencontainers.image.ref.name": testTag}
		if !maps.Equal(descriptor.Annotations, want) {
			t.Errorf("annotations %v, want %v", descriptor.Annotations, want)
		}
	})
}

func TestConfiguration(t *testing.T) {
	eachArchitecture(t, func(t *testing.T, arch string) {
		img, _ := asOCI(t, arch)
		c, err := img.ConfigFile()
		check(t, err)
		if c.OS != "linux" || c.Architecture != arch || !c.Created.Equal(testTime) {
			t.Errorf("%s/%s of %s, want linux/%s of %s", c.OS, c.Architecture, c.Created, arch, testTime)
		}
		if !slices.Equal(c.Config.Entrypoint, []string{"/usr/bin/podwall-agent"}) || c.Config.User != "0:0" || len(c.Config.Cmd) != 0 {
			t.Errorf("starts %q as %q", append(c.Config.Entrypoint, c.Config.Cmd...), c.Config.User)
		}
		for label, want := range map[string]string{"version": testVersion, "revision": "abcdef", "licenses": "Apache-2.0",
			"created": testTime.Format(time.RFC3339), "source": "https://github.com/podwall/podwall", "title": "podwall"} {
			if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
				t.Errorf("label %s: %q, want %q", label, got, want)
			}
		}
	})
}

// One layer serves every release and both architectures.
func TestTheBaseIsTheSameEverywhere(t *testing.T) {
	var base []v1.Hash
	for _, arch := range programs.Architectures() {
		img, _ := asOCI(t, arch)
		m, err := img.Manifest()
		check(t, err)
		base = append(base, m.Layers[0].Digest)
	}
	if base[0] != base[1] {
		t.Errorf("base layers %v differ", base)
	}
}

func TestContents(t *testing.T) {
	want := map[string]int64{"etc/": 0o755, "etc/group": 0o644, "etc/passwd": 0o644, "etc/ssl/": 0o755, "etc/ssl/certs/": 0o755,
		"etc/ssl/certs/ca-certificates.crt": 0o644, "usr/": 0o755, "usr/bin/": 0o755, "usr/bin/podwall-agent": 0o755,
		"usr/bin/podwall-gate": 0o755, "usr/share/": 0o755, "usr/share/licenses/": 0o755, "usr/share/licenses/podwall/": 0o755,
		"usr/share/licenses/podwall/LICENSE": 0o644, "usr/share/licenses/podwall/THIRD-PARTY": 0o644}
	eachArchitecture(t, func(t *testing.T, arch string) {
		got := map[string]int64{}
		all := unpacked(t, arch)
		for name, e := range all {
			got[name] = e.header.Mode
		}
		if !maps.Equal(got, want) {
			t.Errorf("files and modes %v, want %v", got, want)
		}
		for _, program := range programs.Node() {
			isStatic(t, arch, all["usr/bin/"+program].text)
		}
		if text := string(all["usr/share/licenses/podwall/THIRD-PARTY"].text); !strings.Contains(text, "k8s.io/client-go") {
			t.Error("the licences of the modules are not there")
		}
	})
}

func isStatic(t *testing.T, arch string, program []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	check(t, err)
	defer f.Close()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		t.Errorf("a program for %s, want %s", f.Machine, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program has a segment %s: it is not static", p.Type)
		}
	}
}

func TestCertificatesAreRead(t *testing.T) {
	text := unpacked(t, "amd64")["etc/ssl/certs/ca-certificates.crt"].text
	count := bytes.Count(text, []byte("BEGIN CERTIFICATE"))
	pool := x509.NewCertPool()
	for range count {
		if !pool.AppendCertsFromPEM(text) {
			t.Fatal("no certificate is read")
		}
	}
	if count < 100 {
		t.Errorf("%d certificates, want what Mozilla trusts: more than 100", count)
	}
}
