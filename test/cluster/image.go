// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// The images of every node. Agnhost has the name that the upstream specs ask for.
const (
	Agnhost    = "registry.k8s.io/e2e-test-images/agnhost:2.59"
	pauseImage = "podwall.invalid/pause:1"
)

// member is a file of a tar archive, or a link if it has a target.
type member struct {
	name   string
	data   []byte
	target string
}

func archive(members ...member) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: 0o755, Size: int64(len(m.data))}
		if m.target != "" {
			header.Typeflag, header.Linkname = tar.TypeSymlink, m.target
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(m.data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// Image describes one that is made of static programs.
type Image struct {
	Name       string
	Files      map[string]string // by their names in the image, without the first slash: what they are copied from
	Links      map[string]string // further names, and what each is a name of
	Entrypoint string
	Args       []string
}

// Write writes the image as an archive that container engines import.
func (i Image) Write(to string) error {
	var members []member
	for _, name := range slices.Sorted(maps.Keys(i.Files)) {
		data, err := os.ReadFile(i.Files[name])
		if err != nil {
			return err
		}
		members = append(members, member{name: name, data: data})
	}
	for _, name := range slices.Sorted(maps.Keys(i.Links)) {
		members = append(members, member{name: name, target: i.Links[name]})
	}
	layer, err := archive(members...)
	if err != nil {
		return err
	}
	type object map[string]any
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(object{"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{i.Entrypoint}, "Cmd": i.Args,
			"WorkingDir": "/", "Env": []string{"PATH=/:/usr/bin:/bin"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}}})
	list, err2 := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{i.Name},
		"Layers": []string{"layer.tar"}}})
	whole, err3 := archive(member{name: "config.json", data: config}, member{name: "layer.tar", data: layer},
		member{name: "manifest.json", data: list})
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	return os.WriteFile(to, whole, 0o600)
}

// ownImages writes the images that every node has, and returns their files.
func (c *Cluster) ownImages() ([]string, error) {
	bin := c.options.Bin
	pause, agnhost := filepath.Join(c.dir, "pause.tar"), filepath.Join(c.dir, "agnhost.tar")
	err := Image{Name: pauseImage, Files: map[string]string{"pause": filepath.Join(bin, "pause")},
		Entrypoint: "/pause"}.Write(pause)
	if c.options.Tools {
		more, err2 := c.toolImages()
		return append(more, pause), errors.Join(err, err2)
	}
	return []string{pause, agnhost}, errors.Join(err,
		Image{Name: Agnhost, Files: map[string]string{"agnhost": filepath.Join(bin, "agnhost")},
			Links:      map[string]string{"agnhost-2": "agnhost"},
			Entrypoint: "/agnhost", Args: []string{"pause"}}.Write(agnhost))
}
