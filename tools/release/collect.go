// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"

	"github.com/podwall/podwall/tools/internal/licences"
	"github.com/podwall/podwall/tools/internal/pack"
	"github.com/podwall/podwall/tools/internal/programs"
	"github.com/podwall/podwall/tools/internal/sbom"
)

// lab is the one program that is given away and not in the image.
const lab = "podwall-lab"

func given() []string { return []string{"podwall-agent", "podwall-gate", lab} }

// collect builds what `make image` did not, and reads the rest.
func (o options) collect(ctx context.Context) (files []content, err error) {
	var modules []licences.Module
	for _, arch := range programs.Architectures() {
		if modules, err = licences.Linked(ctx, o.root, arch, given()...); err != nil {
			return nil, err
		}
		if err := programs.Build(ctx, o.root, o.version, arch, filepath.Join(o.images, "linux-"+arch),
			lab); err != nil {
			return nil, err
		}
		built, err := o.forArchitecture(arch, modules)
		if err != nil {
			return nil, err
		}
		files = append(files, built...)
	}
	own, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return nil, fmt.Errorf("reading the licence: %w", err)
	}
	files = append(files, content{"LICENSE", 0o644, own}, content{"THIRD-PARTY", 0o644, licences.Text(modules)})
	manifests, err := o.manifests()
	return append(files, manifests...), err
}

// forArchitecture returns the image, the programs and their SBOMs.
func (o options) forArchitecture(arch string, modules []licences.Module) (files []content, err error) {
	var list []sbom.Program
	read := func(from, to string, mode os.FileMode) []byte {
		text, failed := os.ReadFile(from)
		err = errors.Join(err, failed)
		files = append(files, content{to, mode, text})
		return text
	}
	for _, program := range given() {
		text := read(filepath.Join(o.images, "linux-"+arch, program), fmt.Sprintf("%s-%s-linux-%s", program,
			o.version, arch), 0o755)
		list = append(list, sbom.Program{Name: program, Text: text})
	}
	for _, kind := range []string{"tar", "spdx.json"} {
		read(filepath.Join(o.images, "podwall-"+arch+"."+kind), fmt.Sprintf("podwall-image-%s-%s.%s", o.version, arch,
			kind), 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was built: run `make image` first: %w", err)
	}
	if err := o.fits(filepath.Join(o.images, "podwall-"+arch+".tar")); err != nil {
		return nil, err
	}
	bill, err := sbom.Write(sbom.Subject{Name: "podwall-linux-" + arch, Version: o.version,
		Kind: "APPLICATION", Created: o.created,
		Programs: list}, modules)
	if err != nil {
		return nil, err
	}
	return append(files, content{fmt.Sprintf("podwall-%s-linux-%s.spdx.json", o.version, arch), 0o644, bill}), nil
}

// fits refuses an image that an earlier build left.
func (o options) fits(file string) error {
	tag, err := name.NewTag("podwall/podwall:" + o.tag)
	if err != nil {
		return fmt.Errorf("tag: %w", err)
	}
	img, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		return fmt.Errorf("%s: run `make image` for tag %s: %w", file, o.tag, err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	version, revision := c.Config.Labels["org.opencontainers.image.version"],
		c.Config.Labels["org.opencontainers.image.revision"]
	if version != o.version || revision != o.revision {
		return fmt.Errorf("%s is of version %q, commit %q: run `make image` for %q, %q", file, version, revision,
			o.version, o.revision)
	}
	return nil
}

// manifests returns the chart as a package, and what is rendered from it.
func (o options) manifests() ([]content, error) {
	chart, err := loader.LoadDir(filepath.Join(o.root, "deploy", "chart", "podwall"))
	if err != nil {
		return nil, fmt.Errorf("reading the chart: %w", err)
	}
	packed, err := chartPackage(chart)
	if err != nil {
		return nil, fmt.Errorf("packaging the chart: %w", err)
	}
	files := []content{{"podwall-" + chart.Metadata.Version + ".tgz", 0o644, packed}}
	for _, name := range []string{"podwall.yaml", "uninstall.yaml", "tke/podwall.yaml",
		"tke/kube-router-firewall-daemonset.yaml"} {
		text, err := os.ReadFile(filepath.Join(o.root, "deploy", name))
		if err != nil {
			return nil, fmt.Errorf("reading the manifests: %w", err)
		}
		if image := "podwall/podwall:" + o.tag; !named(text, image) {
			return nil, fmt.Errorf("deploy/%s does not name the image %s: run `make deploy`", name, image)
		}
		files = append(files, content{strings.ReplaceAll(name, "/", "-"), 0o644, text})
	}
	check, err := os.ReadFile(filepath.Join(o.root, "deploy", "connectivity-check.sh"))
	if err != nil {
		return nil, fmt.Errorf("reading the connectivity check: %w", err)
	}
	return append(files, content{"connectivity-check.sh", 0o755, check}), nil
}

// named reports whether a manifest runs an image and no other one.
func named(manifest []byte, image string) bool {
	found := false
	for line := range strings.Lines(string(manifest)) {
		if _, is, ok := strings.Cut(line, " image: "); ok {
			if strings.Trim(strings.TrimSpace(is), `"`) != image {
				return false
			}
			found = true
		}
	}
	return found
}

// chartPackage returns a chart as helm packages it, but the same bytes each
// time: helm's own writer puts the time of packaging in.
func chartPackage(chart *chartv2.Chart) ([]byte, error) {
	var files []pack.File
	for _, f := range chart.Raw {
		files = append(files, pack.File{Name: chart.Name() + "/" + f.Name, Mode: 0o644, Text: f.Data})
	}
	text, err := pack.Tar(files)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}
