// SPDX-License-Identifier: Apache-2.0

// Package internal_test holds the rules of the code base as tests: which
// package may import what and why, and the form of every file. It reads source
// text only and compiles nothing.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module       = "github.com/podwall/podwall/"
	licence      = "// SPDX-License-Identifier: Apache-2.0\n\n"
	maxFileLines = 500
	maxFuncLines = 80
)

func ours(names ...string) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = module + "internal/" + n
	}
	return list
}

// within reports whether an import path is one of the list or below it. net is
// the exception: net/netip is a value type.
func within(path string, list []string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		return path == p || p != "net" && strings.HasPrefix(path, p+"/")
	})
}

// breach says why a package of the layer must not import path, or "".
func (l layer) breach(path string) string {
	first, _, _ := strings.Cut(path, "/")
	standard := !strings.Contains(first, ".")
	self := within(path, []string{module + l.pkg})
	switch {
	case l.pure && within(path, effects()) && (path != "time" || !l.timed):
		return "the package is pure: " + l.reason
	case within(path, l.never), l.may != nil && !standard && !self && !within(path, l.may):
		return l.reason
	}
	return ""
}

// source is one Go file of the repository.
type source struct {
	name   string // from the top of the repository
	text   []byte
	file   *ast.File
	set    *token.FileSet
	nested bool // belongs to another module of the repository
}

func (s source) test() bool  { return strings.HasSuffix(s.name, "_test.go") }
func (s source) dir() string { return path.Dir(s.name) }
func (s source) imports() []string {
	var list []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			list = append(list, p)
		}
	}
	return list
}

func parse(t *testing.T, name string, text []byte) source {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("parsing %s: %v", name, err)
	}
	return source{name: name, text: text, file: file, set: set}
}

// sources reads every Go file of the repository, sorted by name.
func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	var modules []string // directories of nested modules
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != "." || d.Name() == "testdata" || d.Name() == "zdeps"):
			return fs.SkipDir
		case d.IsDir() && name != ".":
			if _, err := fs.Stat(root, name+"/go.mod"); err == nil {
				modules = append(modules, name)
			}
		case strings.HasSuffix(name, ".go"):
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			s := parse(t, name, text)
			s.nested = within(name, modules)
			list = append(list, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// layerOf returns the layer with the longest name that covers the directory.
func layerOf(dir string) (layer, bool) {
	var best layer
	for _, l := range layers() {
		if within(dir, []string{l.pkg}) && len(l.pkg) > len(best.pkg) {
			best = l
		}
	}
	return best, best.pkg != ""
}

// clock returns what a file uses of package time beside its types; "" for nothing.
func clock(s source) (name string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && fmt.Sprint(f.X) == "time" {
				name = f.Sel.Name
			}
		}
		return true
	})
	return name
}

// importProblems checks one file against its layer and against the owners.
func importProblems(s source) []string {
	if s.test() || s.nested {
		return nil
	}
	var problems []string
	for _, p := range s.imports() {
		if l, ok := layerOf(s.dir()); ok {
			if why := l.breach(p); why != "" {
				problems = append(problems, fmt.Sprintf("%s imports %s: %s", s.name, p, why))
			}
			if name := clock(s); l.timed && name != "" {
				problems = append(problems, fmt.Sprintf("%s uses time.%s: times are given to it", s.name, name))
			}
		}
		for mod, by := range owners() {
			if within(p, []string{mod}) && !within(s.dir(), by) {
				problems = append(problems, fmt.Sprintf("%s imports %s, which only %v may", s.name, p, by))
			}
		}
	}
	return problems
}

func TestImportsPointTheRightWay(t *testing.T) {
	for _, s := range sources(t) {
		for _, problem := range importProblems(s) {
			t.Error(problem)
		}
	}
}

func TestListedPackagesExistAndExistingOnesAreListed(t *testing.T) {
	exists := map[string]bool{}
	for _, s := range sources(t) {
		exists[s.dir()], exists[path.Dir(s.dir())] = true, true
		_, listed := layerOf(s.dir())
		if !listed && !s.test() && strings.HasPrefix(s.name, "internal/") {
			t.Errorf("%s belongs to no layer; add one", s.name)
		}
	}
	for _, l := range layers() {
		if !exists[l.pkg] {
			t.Errorf("package %s is listed and does not exist", l.pkg)
		}
	}
}

// directDependencies reads the modules of go.mod that are not indirect.
func directDependencies(gomod string) []string {
	var list []string
	inside := false
	for line := range strings.Lines(gomod) {
		line, single := strings.CutPrefix(strings.TrimSpace(line), "require ")
		switch {
		case single && line == "(":
			inside = true
		case line == ")":
			inside = false
		case (inside || single) && line != "" && !strings.HasSuffix(line, "// indirect"):
			list = append(list, strings.Fields(line)[0])
		}
	}
	return list
}

func TestEveryDirectDependencyIsExplainedAndNoOther(t *testing.T) {
	var direct []string
	for _, name := range []string{"../go.mod", "../tools/go.mod"} {
		gomod, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		direct = append(direct, directDependencies(string(gomod))...)
	}
	adr, err := os.ReadFile(filepath.FromSlash("../docs/adr/0002-dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(direct) == 0 {
		t.Fatal("no dependencies found in go.mod")
	}
	for _, mod := range direct {
		if !strings.Contains(string(adr), "\n| `"+mod+"` |") {
			t.Errorf("docs/adr/0002-dependencies.md has no row for %s: say why it and not another", mod)
		}
	}
	for line := range strings.Lines(string(adr)) {
		mod, ok := strings.CutPrefix(line, "| `")
		mod, _, _ = strings.Cut(mod, "`")
		known := slices.Contains(direct, mod)
		if ok && !known {
			t.Errorf("docs/adr/0002-dependencies.md explains %s, which neither go.mod nor tools/go.mod requires directly", mod)
		}
	}
}

func TestTheRulesSeeABreach(t *testing.T) {
	tests := []struct {
		name, file, path string
		breach           bool
	}{
		{"a pure package reads the clock", "internal/netpol/policy/x.go", "time", true},
		{"a pure package reads files through a sub-package", "internal/netpol/program/x.go", "os/exec", true},
		{"addresses are values", "internal/netpol/program/x.go", "net/netip", false},
		{"connections are not", "internal/netpol/program/x.go", "net", true},
		{"the oracle borrows from the compiler", "internal/netpol/oracle/x.go", module + "internal/netpol/compile", true},
		{"the oracle borrows the program's vocabulary", "internal/netpol/oracle/x.go", module + "internal/netpol/program", true},
		{"the oracle reads the cluster", "internal/netpol/oracle/x.go", module + "internal/cluster", false},
		{"the cluster uses upstream's labels", "internal/cluster/x.go", "k8s.io/apimachinery/pkg/labels", false},
		{"the cluster uses more of upstream", "internal/cluster/x.go", "k8s.io/apimachinery/pkg/types", true},
		{"the program learns of policies", "internal/netpol/program/x.go", module + "internal/netpol/policy", true},
		{"a driver learns of policies", "internal/kernel/nft/x.go", module + "internal/netpol/policy", true},
		{"a driver's sub-package does", "internal/kernel/nft/text/x.go", module + "internal/netpol/policy", true},
		{"a driver uses its own sub-package", "internal/kernel/nft/x.go", module + "internal/kernel/nft/text", false},
		{"a command talks to the API server", "cmd/podwall-agent/x.go", "k8s.io/client-go/rest", true},
		{"the source does", "internal/source/kube/x.go", "k8s.io/client-go/rest", false},
		{"a test may import anything", "internal/netpol/policy/x_test.go", "os", false},
		{"the agent takes the bed along", "internal/agent/x.go", module + "internal/lab/netns", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := parse(t, tt.file, []byte("package x\n\nimport _ \""+tt.path+"\"\n"))
			if got := importProblems(s); (len(got) > 0) != tt.breach {
				t.Errorf("problems = %v, want some: %t", got, tt.breach)
			}
		})
	}
}

func TestAClockIsSeen(t *testing.T) {
	for text, want := range map[string]string{"var x = time.Now()": "Now", "var x time.Time": "", "const x = time.Second": ""} {
		s := parse(t, "internal/netpol/decide/x.go", []byte("package x\n\nimport \"time\"\n\n"+text+"\n"))
		if got := clock(s); got != want || (len(importProblems(s)) > 0) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", text, got, importProblems(s), want)
		}
	}
}

func TestSizesAndDependenciesAreCounted(t *testing.T) {
	s := parse(t, "x.go", []byte("package x\n\nfunc F() {\n\tprintln()\n}\n"))
	if file, functions := sizes(s); file != 5 || functions["x.go:F"] != 3 {
		t.Errorf("sizes = %d, %v, want 5 lines with F of 3", file, functions)
	}
	got := directDependencies("module m\n\nrequire a/b v1\n\nrequire (\n\tc/d v1\n\te/f v1 // indirect\n)\n")
	if !slices.Equal(got, []string{"a/b", "c/d"}) {
		t.Errorf("direct dependencies = %v, want a/b and c/d", got)
	}
}
