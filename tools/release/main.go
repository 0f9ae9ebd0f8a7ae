// SPDX-License-Identifier: Apache-2.0

// Command release puts what is given away into one directory: images, programs,
// the chart and the manifests, SBOMs, licences, checksums and, by option, a
// manifest for krew, a provenance statement and a signature. `make image` must
// have been run for the same version. See docs/release.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/podwall/podwall/tools/internal/programs"
)

func main() {
	o := options{log: os.Stderr}
	programs.Source{Root: &o.root, Version: &o.version, Revision: &o.revision, Tag: &o.tag,
		Created: &o.created}.Flags(flag.CommandLine)
	flag.StringVar(&o.images, "images", "bin/image", "what `make image` wrote")
	flag.StringVar(&o.out, "out", "dist", "directory to write; an earlier release in it is replaced")
	flag.StringVar(&o.url, "url", "", "where the files of this release will be, https://…: writes a manifest for krew")
	flag.StringVar(&o.builder, "builder", "", "who builds, as a URI: writes a provenance statement that says so")
	flag.StringVar(&o.key, "key", "", "SSH key that signs the checksums (a public one if ssh-agent has it)")
	flag.Parse()
	if err := o.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

type options struct {
	root, images, out      string
	version, revision, tag string
	created                time.Time
	url, builder, key      string
	log                    io.Writer
}

// content is one file of a release.
type content struct {
	name string
	mode os.FileMode
	text []byte
}

func (o options) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	files, err := o.collect(ctx)
	if err != nil {
		return err
	}
	return o.publish(ctx, files)
}

// check refuses to sign what nobody could build again, and to remove a
// directory that no release is in.
func (o options) check() error {
	if err := programs.CheckVersion(o.version); err != nil {
		return err
	}
	if o.key != "" && (o.version != "v"+o.tag || o.revision == "") {
		return fmt.Errorf("version %s is not signed: a release is built at the tag v%s (the chart's appVersion), "+
			"from a clean tree: without SIGN_KEY it can be tried", o.version, o.tag)
	}
	if err := o.checkURL(); err != nil {
		return err
	}
	entries, err := os.ReadDir(o.out)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(o.out, sums)); err != nil {
		return fmt.Errorf("%s has files and no %s: it is no earlier release; remove it, or name another directory",
			o.out, sums)
	}
	return nil
}

// publish writes the files with what vouches for them, all or nothing.
func (o options) publish(ctx context.Context, files []content) error {
	if o.builder != "" {
		statement, err := o.provenance(files)
		if err != nil {
			return err
		}
		files = append(files, statement)
	}
	if err := distinct(files); err != nil {
		return err
	}
	files = append(files, checksums(files))
	next := o.out + ".new"
	if err := errors.Join(os.RemoveAll(next), os.MkdirAll(next, 0o755)); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(next, f.name), f.text, f.mode); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	if o.key != "" {
		if err := sign(ctx, o.key, filepath.Join(next, sums)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(o.out), os.Rename(next, o.out)); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	return nil
}

// distinct returns an error if one file would replace another.
func distinct(files []content) error {
	seen := map[string]bool{}
	for _, f := range files {
		if seen[f.name] {
			return fmt.Errorf("two files of the release are named %s: rename one", f.name)
		}
		seen[f.name] = true
	}
	return nil
}
