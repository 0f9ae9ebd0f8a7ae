// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// archiveRoot is the directory in which a bundle is unpacked.
const archiveRoot = "podwall-bundle"

// archive writes a tar.gz. Several goroutines may add files.
type archive struct {
	at time.Time

	mu  sync.Mutex // guards what follows
	zip *gzip.Writer
	tar *tar.Writer
	err error // the first one
}

func newArchive(out io.Writer, at time.Time) *archive {
	z := gzip.NewWriter(out)
	return &archive{at: at, zip: z, tar: tar.NewWriter(z)}
}

// add writes one file. An error is reported by close.
func (a *archive) add(name string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	a.err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: archiveRoot + "/" + name, Mode: 0o600,
		Size: int64(len(data)), ModTime: a.at})
	if a.err == nil {
		_, a.err = a.tar.Write(data)
	}
}

// addJSON writes a value as a file.
func (a *archive) addJSON(name string, value any) error {
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	a.add(name, append(text, '\n'))
	return nil
}

func (a *archive) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	return errors.Join(a.tar.Close(), a.zip.Close())
}

// fileName makes a name of the API a part of a path that stays where it is.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, name)
	if strings.Trim(name, ".") == "" {
		return "_" + name
	}
	return name
}

// openArchive opens the file of a bundle, which must not exist: it is readable for its owner only. "-" is
// the standard output, unless that is a terminal. drop removes a file that was begun.
func openArchive(name string, stdout io.Writer) (out io.WriteCloser, drop func(), err error) {
	if name != "-" {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("writing the bundle: %w; name another file with -o", err)
		}
		return file, func() { _ = os.Remove(name) }, nil // the caller reports why
	}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, nil, errors.New("a bundle is not for a terminal: redirect the output, or name a file with -o")
	}
	return unclosed{stdout}, func() {}, nil
}

// unclosed is a writer of somebody else.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// bounded takes an answer up to a number of bytes. Above it calls end, once, and keeps what it has.
type bounded struct {
	most int
	end  func()

	mu     sync.Mutex // exec may still write when it has returned
	closed bool
	cut    bool
	text   []byte
}

// Write never fails: exec logs the error of a writer and reads on.
func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.cut {
		return len(p), nil
	}
	if len(b.text)+len(p) > b.most {
		b.cut = true
		b.text = append(b.text, p[:b.most-len(b.text)]...)
		b.end()
		return len(p), nil
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

// close ends the answer and returns it.
func (b *bounded) close() (text []byte, cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.text, b.cut
}
