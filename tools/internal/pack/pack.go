// SPDX-License-Identifier: Apache-2.0

// Package pack writes archives that are the same bytes for the same files:
// sorted, of root and of 1970 (a zip archive of 1980, its first year). It does
// not choose the files.
package pack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io/fs"
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

// TarGzip returns files as Tar does, compressed with gzip.
func TarGzip(files []File) ([]byte, error) {
	text, err := Tar(files)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	err = w.Close()
	return b.Bytes(), err
}

// Zip returns files as a zip archive, sorted by name.
func Zip(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	for _, f := range files {
		h := &zip.FileHeader{Name: f.Name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		h.SetMode(fs.FileMode(f.Mode))
		to, err := w.CreateHeader(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if _, err := to.Write(f.Text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	err := w.Close() // which writes the directory
	return b.Bytes(), err
}
