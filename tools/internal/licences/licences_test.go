// SPDX-License-Identifier: Apache-2.0

package licences

import (
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/tools/internal/programs"
)

// allowed are the licences that ask for no more than to be passed on.
func allowed() []string { return []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"} }

// excused are modules with further licences, each with the reason why they may
// be linked. Those that are not in the image say so.
func excused() map[string]string {
	return map[string]string{
		"codeberg.org/go-fonts/liberation OFL-1.1": "podwall-lab only, for plots: fonts that may be passed on with a program",
		"github.com/ajstarks/svgo CC-BY-4.0":       "podwall-lab only, for plots: asks for attribution, which THIRD-PARTY gives",
		"github.com/golang/freetype unknown":       "podwall-lab only, for plots: FreeType Licence or GPL-2.0 at the user's choice; the former is like BSD",
	}
}

// Every module, of every program that is given away, on every system.
func TestEveryLinkedModuleHasAnAllowedLicence(t *testing.T) {
	unused := excused()
	for _, s := range programs.Systems() {
		modules, err := Linked(t.Context(), "../../..", s, programs.Released(s)...)
		if err != nil {
			t.Fatal(err)
		}
		if len(modules) < 40 {
			t.Errorf("%s: %d modules, want all of them", s, len(modules))
		}
		for _, m := range modules {
			for _, l := range objections(m) {
				if _, ok := excused()[l]; !ok {
					t.Errorf("%s: no licence that is allowed: use another module, or argue for it in this test", l)
				}
				delete(unused, l)
			}
		}
	}
	for l := range unused {
		t.Errorf("the excuse for %s is not needed any more", l)
	}
}

// objections returns the licences of a module that are not allowed, each behind
// the module's path, and "unknown" if no file of it is known to be a licence.
func objections(m Module) (list []string) {
	if m.Licence() == "" {
		return []string{m.Path + " unknown"}
	}
	for id := range strings.SplitSeq(m.Licence(), " AND ") {
		if !slices.Contains(allowed(), id) {
			list = append(list, m.Path+" "+id)
		}
	}
	return list
}

// The image is stricter: what is installed on every node needs no excuse.
func TestTheImageNeedsNoExcuse(t *testing.T) {
	modules, err := Linked(t.Context(), "../../..", programs.Linux("amd64"), programs.Node()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if list := objections(m); len(list) > 0 {
			t.Errorf("%q in the image", list)
		}
	}
	text := string(Text(modules))
	for _, m := range modules {
		for _, f := range m.Files {
			if !strings.Contains(text, strings.TrimSpace(string(f.Text))) {
				t.Errorf("%s of %s is not passed on", f.Name, m.Path)
			}
		}
	}
}

// People install the plugin by itself, on their own machines.
func TestThePluginNeedsNoExcuse(t *testing.T) {
	for _, s := range programs.Systems() {
		modules, err := Linked(t.Context(), "../../..", s, programs.Plugin)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range modules {
			if list := objections(m); len(list) > 0 {
				t.Errorf("%s: %q in the plugin", s, list)
			}
		}
	}
}

func TestWhatIsALicence(t *testing.T) {
	const isc = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, " +
		"provided that the above copyright notice and this permission notice appear in all copies.\n\n" +
		"THE SOFTWARE IS PROVIDED \"AS IS\" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED " +
		"WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR " +
		"CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, " +
		"NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.\n"
	text := func(s string) Module { return Module{Path: "a", Files: []File{{"LICENSE", nil, recognise([]byte(s))}}} }
	tests := []struct {
		name string
		m    Module
		want []string
	}{
		{"the text of a licence", text(isc), nil},
		{"a text that names one", text("See https://opensource.org/licenses/MIT"), []string{"a unknown"}},
		{"a licence between other conditions", text(strings.Repeat("You owe the author a beer. ", 60) + isc), []string{"a unknown"}},
		{"no file", Module{Path: "a"}, []string{"a unknown"}},
		{"two, one of them not allowed", Module{Path: "a", Files: []File{{"LICENSE", nil, []string{"MIT", "GPL-3.0"}}}}, []string{"a GPL-3.0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := objections(tt.m); !slices.Equal(got, tt.want) {
				t.Errorf("objections %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAUnionHasEveryFileOnce(t *testing.T) {
	file := func(name string) File { return File{Name: name, IDs: []string{name}} }
	got := Union([]Module{{"a", "v1", []File{file("MIT")}}, {"c", "v1", nil}},
		[]Module{{"a", "v1", []File{file("ISC"), file("MIT")}}, {"b", "v1", nil}})
	var text []string
	for _, m := range got {
		text = append(text, m.Path+" "+m.Version+" "+m.Licence())
	}
	if want := []string{"a v1 ISC AND MIT", "b v1 ", "c v1 "}; !slices.Equal(text, want) || len(got[0].Files) != 2 {
		t.Errorf("union %q, want %q", text, want)
	}
}
