// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile bounds the size of a file that is read. A hundred thousand pods with their status take
// about half of it.
const maxFile = 256 << 20

// rawFile is the content of a file, or the reason why it could not be read.
type rawFile struct {
	name string // without the directory
	data []byte
	info fs.FileInfo // nil if the file could not be opened
	err  error
}

func (f rawFile) parse() (*file, *SyntaxError) {
	if f.err != nil {
		return nil, &SyntaxError{File: f.name, Line: 1, Message: f.err.Error(), Cure: "make the file readable"}
	}
	parsed, err := parseFile(f.name, f.data)
	var syntax *SyntaxError
	if err != nil && !errors.As(err, &syntax) {
		syntax = &SyntaxError{File: f.name, Line: 1, Message: err.Error()}
	}
	return parsed, syntax
}

// Digest identifies the content of a directory: a hash over the names and contents of the files
// that are read. Source sets it as the store's source, so that a writer can find out whether its
// files are enforced.
func Digest(dir string) (string, error) {
	files, err := readDir(dir)
	if err != nil {
		return "", err
	}
	return digest(files), nil
}

func digest(files []rawFile) string {
	h := sha256.New()
	for _, f := range files {
		data := f.data
		if f.err != nil {
			data = []byte("unreadable")
		}
		for _, part := range [][]byte{[]byte(f.name), data} {
			// Lengths first, so that two different directories never give the same bytes.
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readDir reads the manifests of a directory, sorted by name.
func readDir(dir string) ([]rawFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	var files []rawFile
	for _, e := range entries {
		if !isManifest(e.Name()) {
			continue
		}
		f := readFile(filepath.Join(dir, e.Name()))
		if errors.Is(f.err, fs.ErrNotExist) || errors.Is(f.err, errNoFile) {
			continue // it was just deleted, or is a directory
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b rawFile) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

func isManifest(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return !strings.HasPrefix(name, ".") && (ext == ".yaml" || ext == ".yml" || ext == ".json")
}

var errNoFile = errors.New("not a regular file")

// readFile follows symbolic links: ConfigMap volumes are made of them.
func readFile(path string) rawFile {
	raw := rawFile{name: filepath.Base(path)}
	raw.data, raw.info, raw.err = readRegular(path)
	return raw
}

func readRegular(path string) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errNoFile // a pipe would block for ever
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("the file is larger than %d MiB", maxFile>>20)
	}
	return data, info, err
}
