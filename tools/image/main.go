// SPDX-License-Identifier: Apache-2.0

// Command image writes podwall's container image, once for each architecture,
// without a container engine and without a registry. See docs/image.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/podwall/podwall/tools/internal/licences"
	"github.com/podwall/podwall/tools/internal/pack"
	"github.com/podwall/podwall/tools/internal/programs"
	"github.com/podwall/podwall/tools/internal/sbom"
)

func main() {
	var o options
	programs.Source{Root: &o.root, Version: &o.version, Revision: &o.revision, Tag: &o.tag,
		Created: &o.created}.Flags(flag.CommandLine)
	flag.StringVar(&o.out, "out", "bin/image", "directory to write to")
	flag.Parse()
	if err := o.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// options say what is built from where. Equal options and sources, built by the
// same Go, give equal bytes.
type options struct {
	root, out              string
	version, revision, tag string
	created                time.Time
}

func (o options) run(ctx context.Context) error {
	for _, arch := range programs.Architectures() {
		if err := o.build(ctx, arch); err != nil {
			return err
		}
	}
	return nil
}

// build writes the image and its list of contents for one architecture.
func (o options) build(ctx context.Context, arch string) error {
	system := programs.Linux(arch)
	bin := filepath.Join(o.out, system.String())
	if err := programs.Build(ctx, o.root, o.version, system, bin, programs.Node()...); err != nil {
		return err
	}
	modules, err := licences.Linked(ctx, o.root, system, programs.Node()...)
	if err != nil {
		return err
	}
	base, err := baseFiles()
	if err != nil {
		return err
	}
	installed, list, err := o.programFiles(bin, modules)
	if err != nil {
		return err
	}
	img, err := o.image(arch, base, installed)
	if err != nil {
		return err
	}
	tar, err := archive(img, o.tag, arch)
	if err != nil {
		return err
	}
	bill, err := sbom.Write(sbom.Subject{Name: "podwall-image-" + arch, Version: o.version,
		Kind: "CONTAINER", Created: o.created,
		Programs: list, Data: []sbom.Data{rootsModule()}}, modules)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"podwall-" + arch + ".tar": tar, "podwall-" + arch + ".spdx.json": bill} {
		if err := replace(filepath.Join(o.out, name), text); err != nil {
			return err
		}
	}
	return nil
}

// programFiles returns the layer of the programs with their licences, and the
// programs once more for the list of contents.
func (o options) programFiles(bin string, modules []licences.Module) (files []pack.File, list []sbom.Program,
	err error) {
	for _, name := range programs.Node() {
		text, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, nil, fmt.Errorf("reading what was built: %w", err)
		}
		files = append(files, pack.File{Name: "usr/bin/" + name, Mode: 0o755, Text: text})
		list = append(list, sbom.Program{Name: "/usr/bin/" + name, Text: text})
	}
	own, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the licence: %w", err)
	}
	const dir = "usr/share/licenses/podwall/"
	return append(files, pack.File{Name: dir + "LICENSE", Mode: 0o644, Text: own},
		pack.File{Name: dir + "THIRD-PARTY", Mode: 0o644, Text: licences.Text(modules)}), list, nil
}

// replace writes a file whole or not at all.
func replace(name string, text []byte) error {
	if err := os.WriteFile(name+".new", text, 0o644); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
