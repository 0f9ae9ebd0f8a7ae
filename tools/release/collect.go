// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// collect builds what `make image` did not, and reads the rest.
func (o options) collect(ctx context.Context) (files []content, err error) {
	var linked [][]licences.Module
	for _, s := range programs.Systems() {
		from, err := o.build(ctx, s)
		if err != nil {
			return nil, err
		}
		list, err := o.forSystem(s, from)
		if err != nil {
			return nil, err
		}
		files, linked = append(files, list...), append(linked, from.all)
	}
	for _, arch := range programs.Architectures() {
		list, err := o.imageFor(arch)
		if err != nil {
			return nil, err
		}
		files = append(files, list...)
	}
	own, err := o.licence()
	if err != nil {
		return nil, err
	}
	files = append(files, content{licenceFile, 0o644, own},
		content{thirdParty, 0o644, licences.Text(licences.Union(linked...))})
	manifests, err := o.manifests()
	if err != nil {
		return nil, err
	}
	files = append(files, manifests...)
	index, err := o.krew(files)
	return append(files, index...), err
}

// modules are those that the programs for a system are linked with.
type modules struct{ all, plugin []licences.Module }

// build writes the programs for a system that the image does not have.
func (o options) build(ctx context.Context, s programs.System) (from modules, err error) {
	var missing []string
	for _, program := range programs.Released(s) {
		if !slices.Contains(programs.Node(), program) {
			missing = append(missing, program)
		}
	}
	if err := programs.Build(ctx, o.root, o.version, s, filepath.Join(o.images, s.String()), missing...); err != nil {
		return from, err
	}
	if from.all, err = licences.Linked(ctx, o.root, s, programs.Released(s)...); err != nil {
		return from, err
	}
	from.plugin, err = licences.Linked(ctx, o.root, s, programs.Plugin)
	return from, err
}

// forSystem returns the programs for a system with their SBOM. The plugin is in
// an archive, as krew wants it.
func (o options) forSystem(s programs.System, from modules) (files []content, err error) {
	var list []sbom.Program
	for _, program := range programs.Released(s) {
		name := s.File(program)
		text, err := os.ReadFile(filepath.Join(o.images, s.String(), name))
		if err != nil {
			return nil, fmt.Errorf("reading what was built: run `make image` first: %w", err)
		}
		list = append(list, sbom.Program{Name: name, Text: text})
		released := content{fmt.Sprintf("%s-%s-%s", program, o.version, s), 0o755, text}
		if program == programs.Plugin {
			if released, err = o.archive(s, text, from.plugin); err != nil {
				return nil, err
			}
		}
		files = append(files, released)
	}
	bill, err := sbom.Write(sbom.Subject{Name: "podwall-" + s.String(), Version: o.version, Kind: "APPLICATION",
		Created: o.created, Programs: list}, from.all)
	return append(files, content{fmt.Sprintf("podwall-%s-%s.spdx.json", o.version, s), 0o644, bill}), err
}

// imageFor returns the image and its SBOM.
func (o options) imageFor(arch string) (files []content, err error) {
	for _, kind := range []string{"tar", "spdx.json"} {
		text, failed := os.ReadFile(filepath.Join(o.images, "podwall-"+arch+"."+kind))
		err = errors.Join(err, failed)
		files = append(files, content{fmt.Sprintf("podwall-image-%s-%s.%s", o.version, arch, kind), 0o644, text})
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was built: run `make image` first: %w", err)
	}
	return files, o.fits(filepath.Join(o.images, "podwall-"+arch+".tar"))
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
	return pack.TarGzip(files)
}
