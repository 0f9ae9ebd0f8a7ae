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

// layer says what a package, and the packages below it, may import. Standard
// library imports are free unless the layer is pure.
type layer struct {
	pkg    string
	pure   bool     // no effects: nothing of effects() may be imported
	timed  bool     // and pure, but for the types of package time: times are given to it
	may    []string // imports beside the standard library; nil means any
	never  []string // imports that are refused even when may is nil
	reason string
}

func layers() []layer {
	k8s := []string{"k8s.io/api", "k8s.io/apimachinery"}
	kernel := []string{"github.com/google/nftables", "github.com/mdlayher/netlink",
		"github.com/vishvananda/netlink", "golang.org/x/sys", "golang.org/x/sync"}
	return append(labLayers(k8s), []layer{
		{pkg: "internal/cluster", pure: true, may: append(ours("inet", "wake"), "k8s.io/apimachinery/pkg/labels",
			"k8s.io/apimachinery/pkg/selection"), reason: "it is the vocabulary of all others"},
		{pkg: "internal/immutable", pure: true, may: []string{}, reason: "a container knows nothing of what it holds"},
		{pkg: "internal/wake", pure: true, may: []string{}, reason: "whoever waits for work uses it"},
		{pkg: "internal/logging", may: []string{}, reason: "all programs use it"},
		{pkg: "internal/source/feed", may: []string{}, reason: "both sources and those who show it say it in these words"},
		{pkg: "internal/inet", pure: true, may: ours("immutable"), reason: "it is below whatever has addresses and ports"},
		{pkg: "internal/netpol/program", pure: true, may: ours("immutable", "inet"),
			reason: "a program must be readable without Kubernetes and without nftables"},
		{pkg: "internal/netpol/policy", pure: true, may: ours("cluster", "immutable", "inet", "netpol/program"),
			reason: "what policies mean is a function of the cluster, said in the program's words"},
		{pkg: "internal/netpol/compile", pure: true, may: ours("cluster", "immutable", "inet", "netpol/policy", "netpol/program"),
			reason: "it turns a model into a program and knows no backend"},
		{pkg: "internal/explain", pure: true, may: append(ours("cluster", "inet", "netpol/policy", "netpol/compile", "netpol/program"),
			"k8s.io/apimachinery/pkg/labels", "k8s.io/apimachinery/pkg/selection"),
			reason: "reasons come from what the agents enforce, not from the oracle, which judges them in tests"},
		{pkg: "internal/netpol/denied", pure: true, timed: true, may: ours("cluster", "inet", "netpol/policy", "netpol/program"),
			reason: "why a packet was denied is a function of what is enforced"},
		{pkg: "internal/netpol/oracle", pure: true, may: ours("cluster"),
			reason: "a witness that shares code with policy, compile or program repeats their mistakes"},
		{pkg: "internal/netpol/lint", pure: true, may: ours("cluster", "spelling"),
			reason: "questions about a policy are a function of the cluster; whoever shows them decides which"},
		{pkg: "internal/cluster/convert", pure: true, may: append(ours("cluster", "inet"), k8s...),
			reason: "API objects become cluster values here and nothing else happens"},
		{pkg: "internal/complete", never: append(ours("lab", "agent", "datapath", "kernel", "source/kube", "netpol"), "k8s.io/client-go"),
			reason: "it adds to manifests what a cluster adds, for whoever asks about them"},
		{pkg: "internal/complete/kubelet", pure: true, may: k8s,
			reason: "what a kubelet writes about a pod is a function of the pod"},
		{pkg: "internal/netpol/decide", pure: true, timed: true, may: ours("inet", "netpol/program", "netpol/cut"),
			reason: "a decision is a function of what was read and what was decided before"},
		{pkg: "internal/netpol/cut", pure: true, may: ours("inet", "netpol/program"),
			reason: "which connections end is a function of the program and of what the table says"},
		{pkg: "internal/kernel/conntrack", may: append(ours("inet"), kernel...), reason: "it reads and deletes what it is told to"},
		{pkg: "internal/kernel/nflog", may: kernel, reason: "it receives packets and does not know what they mean"},
		{pkg: "internal/kernel/nft", may: append(ours("immutable", "inet"), kernel...), reason: "a driver serves every ruleset and knows none"},
		{pkg: "internal/netpol/ruleset", may: ours("immutable", "inet", "netpol/program", "kernel/nft"),
			reason: "it says the program in the statements of the driver, and knows no policy"},
		{pkg: "internal/datapath", may: append(ours("wake", "immutable", "inet", "netpol/program", "netpol/ruleset", "kernel/nft",
			"kernel/links", "netpol/cut", "netpol/decide", "kernel/conntrack", "kernel/sysctl", "kuberouter"), kernel...),
			reason: "it makes the kernel agree with a program, whatever the program means"},
		{pkg: "internal/kernel/sysctl", may: []string{"golang.org/x/sys"}, reason: "files with one value each"},
		{pkg: "internal/kernel/links", may: append(append(ours("inet", "wake", "kernel/sysctl"), "golang.org/x/net/bpf"), kernel...),
			reason: "it looks at interfaces, not at policies"},
		{pkg: "internal/kuberouter", pure: true, may: []string{}, reason: "what may be removed is a function of what was found"},
		{pkg: "internal/kuberouter/host", may: append(ours("kuberouter"), kernel...), reason: "it looks and removes, and decides nothing"},
		{pkg: "internal/source/kube", never: ours("netpol/policy", "netpol/compile", "netpol/program", "kernel/nft", "datapath",
			"agent"), reason: "a source fills the store and decides nothing"},
		{pkg: "internal/source/manifest", never: ours("netpol/policy", "netpol/compile", "netpol/program", "kernel/nft", "datapath",
			"agent", "source/kube"), reason: "a source fills the store and decides nothing"},
		{pkg: "internal/observe", never: append(ours("netpol/policy", "netpol/compile", "netpol/program", "kernel/nft", "datapath",
			"agent", "source/kube"), kernel[:3]...), reason: "it says what it was told"},
		{pkg: "internal/gate", may: []string{"golang.org/x/sys"}, reason: "a protocol knows neither of its ends"},
		{pkg: "internal/gate/cni", never: append(ours("cluster", "netpol/policy", "netpol/compile", "netpol/program", "kernel/nft",
			"datapath", "agent"), "k8s.io"), reason: "it announces pods and decides nothing; it must start in milliseconds"},
		{pkg: "internal/gate/nri", never: append(ours("cluster", "netpol/policy", "netpol/compile", "netpol/program", "kernel/nft",
			"datapath", "agent"), "k8s.io"), reason: "it announces pods and decides nothing"},
		{pkg: "internal/spelling", pure: true, may: []string{}, reason: "it compares words"},
		{pkg: "internal/config", may: ours("inet", "spelling"), reason: "settings are values; those who use them are told by the agent"},
		{pkg: "internal/terminal", pure: true, may: []string{}, reason: "it breaks lines"},
		{pkg: "internal/kubectl", never: ours("lab", "agent", "datapath", "observe", "netpol/oracle", "source/kube"),
			reason: "it answers from the rules that agents load, and from what it reads itself"},
		{pkg: "internal/uninstall", may: []string{"k8s.io/apimachinery", "k8s.io/client-go/rest"},
			reason: "it asks the API server about nodes and touches none"},
		{pkg: "internal/agent", never: ours("lab", "netpol/oracle", "lab/cases", "lab/testkit"), reason: "what serves tests is not in the agent"},
	}...)
}

// labLayers are those of tests and tools.
func labLayers(k8s []string) []layer {
	return []layer{
		{pkg: "internal/lab/cases", pure: true, may: append(ours("cluster", "cluster/convert", "inet", "netpol/program",
			"netpol/oracle", "complete/kubelet"), append(k8s, "sigs.k8s.io/yaml")...),
			reason: "a case is data; the backends are given to it"},
		{pkg: "internal/lab/bench", pure: true, may: []string{"golang.org/x/perf"},
			reason: "how values are summed up does not depend on what they measure"},
		{pkg: "internal/lab/bench/plot", pure: true, may: append(ours("lab/bench"), "gonum.org/v1/plot"),
			reason: "a picture shows what it is given"},
		{pkg: "internal/lab/trial", never: append(ours("agent", "datapath", "netpol/policy", "netpol/compile", "observe"),
			"k8s.io/client-go"), reason: "it runs agents as processes and believes packets only"},
		{pkg: "internal/lab/measure", never: ours("agent", "datapath", "netpol/policy", "netpol/compile", "observe"),
			reason: "it runs agents as processes and measures them from outside"},
		{pkg: "internal/lab/process", may: append(ours("lab/netns"), "golang.org/x/sys"),
			reason: "it runs any program; podwall-lab links it, so it knows nothing of tests"},
		{pkg: "internal/lab/cli", never: append(ours("agent", "datapath"), "k8s.io/client-go"),
			reason: "what it shows comes from agents in the bed, or from pure functions"},
		{pkg: "internal/lab/testkit", never: ours("agent"), reason: "tests run an agent as a process, as a node does"},
		{pkg: "internal/lab", never: ours("agent"), reason: "the bed runs an agent as a process, as a node does"},
	}
}

// owners lists modules that only some packages may import outside of tests.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/google/nftables": {"internal/kernel/nft", "internal/datapath", "internal/lab", "internal/kuberouter/host"},
		"k8s.io/client-go": {"internal/source/kube", "internal/uninstall", "internal/kubectl",
			"internal/lab/kubeapi", "internal/lab/measure", "test/cluster"},
		"k8s.io/cli-runtime":                 {"internal/kubectl"},
		"github.com/prometheus":              {"internal/observe"},
		"github.com/fsnotify/fsnotify":       {"internal/source/manifest", "internal/gate/cni"},
		"github.com/containernetworking/cni": {"internal/gate/cni"},
		"github.com/containerd/nri":          {"internal/gate/nri"},
		"gonum.org/v1/plot":                  {"internal/lab/bench/plot"},
		module + "internal/lab/testkit":      {"internal/lab/testkit"},
		"github.com/google/go-cmp":           {"internal/lab/testkit"},
		"go.uber.org/goleak":                 {},
		"pgregory.net/rapid":                 {"internal/lab/testkit"},
	}
}

// effects are the imports that a pure package must not have: files, network,
// clock, chance, logs, and the libraries that talk to something.
func effects() []string {
	return []string{"os", "net", "net/http", "log", "time", "math/rand", "syscall", "golang.org/x/sys",
		"k8s.io/client-go", "k8s.io/klog", "github.com/prometheus", "github.com/google/nftables",
		"github.com/mdlayher", "github.com/vishvananda"}
}

// exceptions are the files and functions that may be larger than the limits,
// each with its reason, as in "internal/x/y.go" or "internal/x/y.go:Func".
func exceptions() map[string]string { return map[string]string{} }

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
