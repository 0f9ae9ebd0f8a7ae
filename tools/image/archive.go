// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/podwall/podwall/tools/internal/pack"
)

// repository is the image's name without a registry: the chart's default.
const repository = "podwall/podwall"

// archive returns the image as a file that is two things at once: an OCI layout
// (oci-layout, index.json, blobs), which containerd, Podman and Docker 25 and
// later read, and a docker-archive (manifest.json, which names the same blobs),
// the only form that older Dockers load.
func archive(img v1.Image, tag, arch string) ([]byte, error) {
	manifest, err := partial.Descriptor(img)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	manifest.ArtifactType = "" // it is an image
	manifest.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	if arch == "arm64" {
		manifest.Platform.Variant = "v8"
	}
	// containerd takes the full name as it is; OCI's own name is the tag.
	manifest.Annotations = map[string]string{"io.containerd.image.name": "docker.io/" + repository + ":" + tag,
		"org.opencontainers.image.ref.name": tag}
	files, list, err := blobs(img)
	if err != nil {
		return nil, err
	}
	list.RepoTags = []string{repository + ":" + tag}
	for name, value := range map[string]any{
		"oci-layout": map[string]string{"imageLayoutVersion": "1.0.0"},
		"index.json": v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex,
			Manifests: []v1.Descriptor{*manifest}},
		"manifest.json": tarball.Manifest{list},
	} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files = append(files, pack.File{Name: name, Mode: 0o644, Text: text})
	}
	return pack.Tar(files)
}

// blobs returns the manifest, the configuration and the layers of an image, and
// Docker's list of the latter two.
func blobs(img v1.Image) (files []pack.File, list tarball.Descriptor, err error) {
	add := func(digest v1.Hash, text []byte) string {
		name := "blobs/" + digest.Algorithm + "/" + digest.Hex
		if !slices.ContainsFunc(files, func(f pack.File) bool { return f.Name == name }) {
			files = append(files, pack.File{Name: name, Mode: 0o644, Text: text})
		}
		return name
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, list, fmt.Errorf("manifest: %w", err)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, list, fmt.Errorf("manifest: %w", err)
	}
	add(digest, manifest)
	name, err := img.ConfigName()
	if err != nil {
		return nil, list, fmt.Errorf("image configuration: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, list, fmt.Errorf("image configuration: %w", err)
	}
	list.Config = add(name, config)
	layers, err := img.Layers()
	if err != nil {
		return nil, list, fmt.Errorf("layers: %w", err)
	}
	for _, l := range layers {
		digest, text, err := compressed(l)
		if err != nil {
			return nil, list, fmt.Errorf("layer: %w", err)
		}
		list.Layers = append(list.Layers, add(digest, text))
	}
	return files, list, nil
}

func compressed(l v1.Layer) (digest v1.Hash, text []byte, err error) {
	if digest, err = l.Digest(); err != nil {
		return digest, nil, err
	}
	r, err := l.Compressed()
	if err != nil {
		return digest, nil, err
	}
	text, err = io.ReadAll(r)
	if err != nil {
		return digest, nil, err
	}
	return digest, text, r.Close()
}
