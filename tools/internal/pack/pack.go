// SPDX-License-Identifier: Apache-2.0

// Package pack writes archives that are the same bytes for the same files:
// sorted, of root and of 1970. It does not choose the files.
package pack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// File is a regular file of an archive. Its name has no leading slash.
type File struct {
	Name string
	Mode int64
	Text []byte
}

// Tar returns files, and the directories that they are in, as a tar archive,
// sorted by name.
func Tar(files []File) ([]byte, error) {
	headers := map[string]*tar.Header{}
	text := map[string][]byte{}
	for _, f := range files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			headers[dir+"/"] = &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}
		}
		headers[f.Name] = &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Mode: f.Mode, Size: int64(len(f.Text))}
		text[f.Name] = f.Text
	}
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := headers[name]
		h.Format, h.ModTime = tar.FormatUSTAR, time.Unix(0, 0)
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(text[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	err := w.Close() // which ends the archive
	return b.Bytes(), err
}
