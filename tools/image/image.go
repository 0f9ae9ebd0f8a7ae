// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/podwall/podwall/tools/internal/pack"
)

const source = "https://github.com/podwall/podwall"

// labels are those that registries and scanners show.
func (o options) labels() map[string]string {
	labels := map[string]string{
		"title":         "podwall",
		"description":   "Enforces Kubernetes NetworkPolicy with nftables on a node",
		"url":           source,
		"source":        source,
		"documentation": source + "/blob/main/docs/image.md",
		"licenses":      "Apache-2.0",
		"vendor":        "podwall",
		"version":       o.version,
		"created":       o.created.Format(time.RFC3339),
	}
	if o.revision != "" {
		labels["revision"] = o.revision
	}
	named := map[string]string{}
	for k, v := range labels {
		named["org.opencontainers.image."+k] = v
	}
	named["org.podwall.go.version"] = runtime.Version()
	return named
}

// image puts the layers together.
func (o options) image(arch string, base, programs []pack.File) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range []struct {
		what  string
		files []pack.File
	}{{"certificates and users", base}, {"podwall " + o.version, programs}} {
		made, err := layer(l.files)
		if err != nil {
			return nil, fmt.Errorf("layer %q: %w", l.what, err)
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: made, History: v1.History{
			Created: v1.Time{Time: o.created}, CreatedBy: "podwall tools/image", Comment: l.what}})
		if err != nil {
			return nil, fmt.Errorf("layer %q: %w", l.what, err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: o.created}
	if arch == "arm64" {
		config.Variant = "v8"
	}
	config.Config = v1.Config{Entrypoint: []string{"/usr/bin/podwall-agent"}, WorkingDir: "/", User: "0:0",
		Env: []string{"PATH=/usr/bin"}, Labels: o.labels()}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	return img, nil
}

// layer returns files as a compressed layer. Its files belong to root and are of
// 1970, so that a layer changes only with its contents: a node that has the
// base of one release has that of the next.
func layer(files []pack.File) (v1.Layer, error) {
	text, err := pack.Tar(files)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestCompression))
}
