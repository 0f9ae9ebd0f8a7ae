// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/krew/pkg/index"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/tools/internal/licences"
	"github.com/podwall/podwall/tools/internal/programs"
)

// A release has the plugin for this machine and for another system as it is
// built, with the licences of what it is linked with there.
func TestThePluginIsReleased(t *testing.T) {
	for _, tt := range []struct {
		system        programs.System
		magic, module string
	}{
		{programs.Linux(runtime.GOARCH), "\x7fELF", "k8s.io/cli-runtime"},
		{programs.System{OS: "windows", Arch: "amd64"}, "MZ", "github.com/inconshreveable/mousetrap"},
	} {
		t.Run(tt.system.String(), func(t *testing.T) {
			if tt.system.OS == "windows" && os.Getenv("PODWALL_SOAK") == "" {
				t.Skip("a cold build takes 5 CPU minutes: make soak; that nothing of Linux is linked is a test of internal")
			}
			o := prepared(t)
			archive, bill := withPlugin(t, o, tt.system)
			inside := unpacked(t, archive)
			program := tt.system.File("kubectl-podwall")
			if got := slices.Sorted(maps.Keys(inside)); !slices.Equal(got, []string{"LICENSE", "THIRD-PARTY", program}) {
				t.Fatalf("%s has %q", archive.name, got)
			}
			if !bytes.HasPrefix(inside[program].text, []byte(tt.magic)) || inside[program].mode.Perm() != 0o755 {
				t.Errorf("%s is of mode %s, and no program for %s", program, inside[program].mode, tt.system)
			}
			own, err := o.licence()
			check(t, err)
			if !bytes.Equal(inside["LICENSE"].text, own) {
				t.Error("LICENSE is not podwall's licence")
			}
			for name, text := range map[string][]byte{"THIRD-PARTY": inside["THIRD-PARTY"].text, "the SBOM": bill.text} {
				if !strings.Contains(string(text), tt.module) {
					t.Errorf("%s does not name %s", name, tt.module)
				}
			}
			if strings.Contains(string(bill.text), `"licenseDeclared": "NOASSERTION"`) {
				t.Error("the SBOM has a module whose licence is unknown")
			}
			if tt.system.OS == "windows" { // a link and the packing cost seconds: one is enough
				return
			}
			wantVersion(t, inside[program].text)
			for name, value := range map[string]string{"GOAMD64": "v3", "GOARM64": "v8.2", "GOFLAGS": "-tags=other",
				"TZ": "Asia/Tokyo"} {
				t.Setenv(name, value)
			}
			if again, _ := withPlugin(t, o, tt.system); !bytes.Equal(again.text, archive.text) {
				t.Error("the archive differs in another environment")
			}
		})
	}
}

// withPlugin builds the plugin alone and returns its archive, and the SBOM of
// the system.
func withPlugin(t *testing.T, o options, s programs.System) (archive, bill content) {
	t.Helper()
	dir := filepath.Join(o.images, s.String())
	if err := os.Remove(filepath.Join(dir, s.File(programs.Plugin))); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	check(t, programs.Build(t.Context(), o.root, o.version, s, dir, programs.Plugin))
	linked, err := licences.Linked(t.Context(), o.root, s, programs.Plugin)
	check(t, err)
	files, err := o.forSystem(s, modules{all: linked, plugin: linked})
	check(t, err)
	for _, f := range files {
		switch f.name {
		case o.archiveName(s):
			archive = f
		case "podwall-v1.2.3-" + s.String() + ".spdx.json":
			bill = f
		}
	}
	return archive, bill
}

func wantVersion(t *testing.T, text []byte) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kubectl-podwall")
	check(t, os.WriteFile(program, text, 0o755))
	out, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "kubectl-podwall v1.2.3" {
		t.Errorf("--version: %q, %v", got, err)
	}
}

// member is a file of an archive.
type member struct {
	mode os.FileMode
	text []byte
}

func unpacked(t *testing.T, archive content) map[string]member {
	t.Helper()
	all := map[string]member{}
	if strings.HasSuffix(archive.name, ".zip") {
		r, err := zip.NewReader(bytes.NewReader(archive.text), int64(len(archive.text)))
		check(t, err)
		for _, f := range r.File {
			from, err := f.Open()
			check(t, err)
			text, err := io.ReadAll(from)
			check(t, errors.Join(err, from.Close()))
			all[f.Name] = member{f.Mode(), text}
		}
		return all
	}
	compressed, err := gzip.NewReader(bytes.NewReader(archive.text))
	check(t, err)
	for r := tar.NewReader(compressed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		check(t, err)
		text, err := io.ReadAll(r)
		check(t, err)
		all[h.Name] = member{h.FileInfo().Mode(), text}
	}
}

// krew itself reads the manifest, compares the checksum and installs the plugin,
// as on each system.
func TestKrewInstallsThePlugin(t *testing.T) {
	o := prepared(t)
	o.url = "https://example.org/v1.2.3/"
	got := released(t, o)
	var plugin index.Plugin
	check(t, yaml.UnmarshalStrict(got[krewFile], &plugin))
	if plugin.Name != "podwall" || plugin.Spec.Version != "v1.2.3" ||
		len(plugin.Spec.Platforms) != len(programs.Systems()) {
		t.Errorf("%s %s for %d platforms", plugin.Name, plugin.Spec.Version, len(plugin.Spec.Platforms))
	}
	for _, s := range programs.Systems() {
		name := "kubectl-podwall-v1.2.3-" + s.String() + ".tar.gz"
		if s.OS == "windows" {
			name = strings.Replace(name, ".tar.gz", ".zip", 1)
		}
		if !strings.Contains(string(got[krewFile]), "uri: https://example.org/v1.2.3/"+name+"\n") {
			t.Errorf("krew does not learn where %s is", name)
		}
		if out, err := krewInstall(t, o, s, name); err != nil {
			t.Errorf("krew for %s: %v\n%s", s, err, out)
		}
	}
	const other = "kubectl-podwall-v1.2.3-linux-amd64.tar.gz"
	check(t, os.WriteFile(filepath.Join(o.out, other), append(got[other], 0), 0o644))
	if out, err := krewInstall(t, o, programs.Linux("amd64"), other); err == nil || !strings.Contains(out, "checksum") {
		t.Errorf("krew and an archive with another checksum: %v\n%s", err, out)
	}
}

// krewInstall has krew install an archive of a release as on a system. Nothing
// is downloaded.
func krewInstall(t *testing.T, o options, s programs.System, archive string) (string, error) {
	t.Helper()
	root := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "krew", "install",
		"--manifest", filepath.Join(o.out, krewFile), "--archive", filepath.Join(o.out, archive))
	cmd.Env = append(os.Environ(), "KREW_ROOT="+root, "KREW_OS="+s.OS, "KREW_ARCH="+s.Arch, "KREW_NO_UPGRADE_CHECK=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), err
	}
	info, err := os.Stat(filepath.Join(root, "bin", s.File("kubectl-podwall"))) // a link to the program
	if err == nil && info.Mode()&0o100 == 0 {
		err = errors.New("it cannot be executed")
	}
	return string(out), err
}

func TestWithoutAnAddressThereIsNoManifestForKrew(t *testing.T) {
	o := prepared(t)
	var said strings.Builder
	o.log = &said
	if _, ok := released(t, o)[krewFile]; ok {
		t.Error("there is one, with addresses that nobody knows")
	}
	if !strings.Contains(said.String(), "RELEASE_URL") {
		t.Errorf("it says %q, want which variable is empty", said.String())
	}
}
