// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

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

// image is the name of the only image: the program probe, and nothing else.
const image = "podwall.invalid/probe:1"

// member is a file of a tar archive.
type member struct {
	name string
	mode int64
	data []byte
}

func archive(members ...member) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: m.mode, Size: int64(len(m.data))})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(m.data); err != nil {
			return nil, err
		}
	}
	err := w.Close() // which ends the archive
	return b.Bytes(), err
}

// writeImage writes the image as an archive that container engines import: a
// layer, its description, and a list of both.
func writeImage(to string) error {
	program, err := os.ReadFile(filepath.Join(bin, "containerd", "probe"))
	if err != nil {
		return err
	}
	layer, err := archive(member{"probe", 0o755, program})
	if err != nil {
		return err
	}
	type object map[string]any
	config, err := json.Marshal(object{"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{"/probe", "pause"}, "WorkingDir": "/"},
		"rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}}})
	list, err2 := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{image}, "Layers": []string{"layer.tar"}}})
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	whole, err := archive(member{"config.json", 0o644, config}, member{"layer.tar", 0o644, layer}, member{"manifest.json", 0o644, list})
	if err != nil {
		return err
	}
	return os.WriteFile(to, whole, 0o600)
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
