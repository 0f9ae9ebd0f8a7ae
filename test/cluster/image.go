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
	"os"
	"path/filepath"
	"runtime"
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

// image describes one that is made of a single static program.
type image struct {
	name    string
	program string
	args    []string
	links   []string // further names of the program
}

// write writes the image as an archive that container engines import.
func (i image) write(to string) error {
	data, err := os.ReadFile(i.program)
	if err != nil {
		return err
	}
	base := filepath.Base(i.program)
	members := []member{{name: base, data: data}}
	for _, link := range i.links {
		members = append(members, member{name: link, target: base})
	}
	layer, err := archive(members...)
	if err != nil {
		return err
	}
	type object map[string]any
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(object{"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{"/" + base}, "Cmd": i.args, "WorkingDir": "/", "Env": []string{"PATH=/"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}}})
	list, err2 := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{i.name}, "Layers": []string{"layer.tar"}}})
	whole, err3 := archive(member{name: "config.json", data: config}, member{name: "layer.tar", data: layer}, member{name: "manifest.json", data: list})
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	return os.WriteFile(to, whole, 0o600)
}

// ownImages writes the images that every node has, and returns their files.
func (c *Cluster) ownImages() ([]string, error) {
	bin := c.options.Bin
	pause, agnhost := filepath.Join(c.dir, "pause.tar"), filepath.Join(c.dir, "agnhost.tar")
	return []string{pause, agnhost}, errors.Join(
		image{name: pauseImage, program: filepath.Join(bin, "pause")}.write(pause),
		image{name: Agnhost, program: filepath.Join(bin, "agnhost"), args: []string{"pause"}, links: []string{"agnhost-2"}}.write(agnhost))
}
