// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// newFile is in the names of files that are not complete. Runtimes read files by their
// ending; this is none that they know.
const newFile = ".podwall-new-"

// write replaces a file in one step: whoever reads it sees the old content or
// the new one, also after a crash. A link is replaced, and not what it leads to.
// Nothing happens if the file has the content.
func (i Installer) write(path string, data []byte, mode fs.FileMode) (changed bool, err error) {
	if old, err := readOwn(path); err == nil && bytes.Equal(old, data) {
		return false, nil
	}
	if err := i.step(path); err != nil {
		return false, err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+newFile+"*")
	if err != nil {
		return false, explained(path, fmt.Errorf("writing %s: %w", path, err))
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		if err := i.step(path); err != nil {
			return false, err // a crash: what is there stays
		}
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return false, errors.Join(explained(path, fmt.Errorf("writing %s: %w", path, err)), os.Remove(temp.Name()))
	}
	return true, syncDir(filepath.Dir(path))
}

// remove removes a file; none is no error.
func (i Installer) remove(path string) error {
	if err := i.step(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explained(path, fmt.Errorf("removing %s: %w", path, err))
	}
	return syncDir(filepath.Dir(path))
}

// step comes before each change of the disk.
func (i Installer) step(path string) error {
	if i.crash == nil {
		return nil
	}
	return i.crash(path)
}

// syncDir makes renames and removals last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", dir, err)
	}
	return nil
}

// maxFile is more than any configuration or program has, in bytes.
const maxFile = 256 << 20

// maxConf is more than any network configuration has, in bytes.
const maxConf = 16 << 20

// readOwn reads a file of ours. It follows no link: who may write the directory could
// have us copy a file that only we may read.
func readOwn(path string) ([]byte, error) { return readRegular(path, unix.O_NOFOLLOW, maxFile) }

// readRegular reads a regular file of limited size; it does not wait for the other end
// of a pipe.
func readRegular(path string, flags int, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("reading %s: it is no regular file", path)
	case info.Size() > limit:
		return nil, fmt.Errorf("reading %s: it is longer than %d bytes", path, limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
