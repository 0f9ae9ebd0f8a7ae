// SPDX-License-Identifier: Apache-2.0

// Package licences finds the licences of all modules that a program is linked with. The modules
// come from the build, their licences from the texts that they contain.
package licences

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"

	"github.com/podwall/podwall/tools/internal/programs"
)

// Standard is the name of Go's standard library among the modules, the one that
// vulnerability databases use.
const Standard = "stdlib"

// Own is the path of podwall's module.
const Own = "github.com/podwall/podwall"

// Module is a module of which at least one package is linked, with the licence
// files of the packages that are, and of the directories above them.
type Module struct {
	Path, Version string
	Files         []File // sorted by name
}

// File is a licence or a notice.
type File struct {
	Name string // from the top of the module
	Text []byte
	IDs  []string // SPDX identifiers of the licences in it, sorted; none in a notice
}

// Licence returns the SPDX expression of all licences of the module, which hold
// together, or "" if none was recognised.
func (m Module) Licence() string {
	var ids []string
	for _, f := range m.Files {
		ids = append(ids, f.IDs...)
	}
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), " AND ")
}

// Linked returns the modules of the commands below cmd in root, for a system,
// sorted by path: podwall's own is not among them, the standard library is.
func Linked(ctx context.Context, root string, s programs.System, commands ...string) ([]Module, error) {
	packages, err := list(ctx, root, s, commands)
	if err != nil {
		return nil, err
	}
	standard, err := standardLibrary(ctx, root)
	if err != nil {
		return nil, err
	}
	modules := map[string]*Module{Standard: &standard}
	for _, p := range packages {
		if p.Standard || p.Module.Path == Own {
			continue
		}
		m, ok := modules[p.Module.Path]
		if !ok {
			m = &Module{Path: p.Module.Path, Version: p.Module.Version}
			modules[m.Path] = m
		}
		if err := m.read(p.Module.Dir, p.Dir); err != nil {
			return nil, err
		}
	}
	return sorted(modules), nil
}

func sorted(modules map[string]*Module) (all []Module) {
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		slices.SortFunc(modules[path].Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
		all = append(all, *modules[path])
	}
	return all
}

// Union returns all modules of lists of one source, each with all its files:
// what is linked differs between systems. It is sorted by path.
func Union(lists ...[]Module) []Module {
	modules := map[string]*Module{}
	for _, m := range slices.Concat(lists...) {
		all, ok := modules[m.Path]
		if !ok {
			all = &Module{Path: m.Path, Version: m.Version}
			modules[m.Path] = all
		}
		for _, f := range m.Files {
			if !all.has(f.Name) {
				all.Files = append(all.Files, f)
			}
		}
	}
	return sorted(modules)
}

func (m *Module) has(file string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == file })
}

// pkg is what `go list` says of a package.
type pkg struct {
	Dir      string
	Standard bool
	Module   struct{ Path, Version, Dir string }
}

func list(ctx context.Context, root string, s programs.System, commands []string) (packages []pkg, err error) {
	args := []string{"list", "-deps", "-json=Dir,Standard,Module"}
	for _, c := range commands {
		args = append(args, "./cmd/"+c)
	}
	text, err := run(ctx, root, programs.Environment(s), args...)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("reading what go list says: %w", err)
		}
		packages = append(packages, p)
	}
}

func standardLibrary(ctx context.Context, root string) (Module, error) {
	text, err := run(ctx, root, os.Environ(), "env", "GOROOT", "GOVERSION")
	if err != nil {
		return Module{}, err
	}
	top, version, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	m := Module{Path: Standard, Version: strings.TrimPrefix(version, "go")}
	return m, m.read(top, top)
}

func run(ctx context.Context, root string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = root, env, os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", args[0], err)
	}
	return text, nil
}

// wanted are the names of files that a licence requires to be passed on, terms
// those of them that hold licences.
var (
	wanted = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|unlicense|notice|patents|authors)([-_.].*)?$`)
	terms  = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-_.].*)?$`)
)

// read adds the licence files of a directory of the module at top, and of all
// directories between the two, unless it has them already.
func (m *Module) read(top, dir string) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.Path, err)
		}
		for _, e := range entries {
			name, err := filepath.Rel(top, filepath.Join(dir, e.Name()))
			if err != nil || m.has(name) || e.IsDir() || filepath.Ext(name) == ".go" || !wanted.MatchString(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return fmt.Errorf("module %s: %w", m.Path, err)
			}
			f := File{Name: filepath.ToSlash(name), Text: text}
			if terms.MatchString(e.Name()) {
				f.IDs = recognise(text)
			}
			m.Files = append(m.Files, f)
		}
		if dir == top || len(dir) <= len(top) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// most is how much of a text, in percent, must be known licences. It is the
// figure of Go's own documentation site.
const most = 75

// recognise returns the licences that a text consists of, or nothing: a text
// that only names a licence is none.
func recognise(text []byte) (ids []string) {
	coverage := licensecheck.Scan(text)
	if coverage.Percent < most {
		return nil
	}
	for _, m := range coverage.Match {
		if !m.IsURL {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Text returns the licences and notices of modules as one document, which is
// passed on with the programs.
func Text(modules []Module) []byte {
	var b bytes.Buffer
	b.WriteString("podwall is linked with the modules below. Their licences and notices follow, module by module.\n\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "%s %s: %s\n", m.Path, m.Version, m.Licence())
	}
	for _, m := range modules {
		for _, f := range m.Files {
			fmt.Fprintf(&b, "\n%s\n%s %s: %s\n\n%s\n", strings.Repeat("-", 78), m.Path, m.Version, f.Name,
				bytes.TrimSpace(f.Text))
		}
	}
	return b.Bytes()
}
