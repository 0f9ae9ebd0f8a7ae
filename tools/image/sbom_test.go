// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"

	"github.com/podwall/podwall/tools/internal/programs"
)

func bill(t *testing.T, arch string) *spdx.Document {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(made, "podwall-"+arch+".spdx.json"))
	check(t, err)
	d, err := json.Read(bytes.NewReader(text))
	check(t, err)
	return d
}

func TestTheBillNamesEveryModule(t *testing.T) {
	eachArchitecture(t, func(t *testing.T, arch string) {
		d := bill(t, arch)
		linked := links(d)
		for _, program := range programs.Node() {
			text := unpacked(t, arch)["usr/bin/"+program].text
			info, err := buildinfo.Read(bytes.NewReader(text))
			check(t, err)
			want := []string{"stdlib@" + info.GoVersion[len("go"):]}
			for _, m := range info.Deps {
				want = append(want, m.Path+"@"+m.Version)
			}
			slices.Sort(want)
			if got := linked[program]; !slices.Equal(got, want) {
				t.Errorf("%s is linked with %q, want %q", program, got, want)
			}
			sum := sha256.Sum256(text)
			if got := checksum(d, program); got != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: checksum %s", program, got)
			}
		}
	})
}

// links returns what each program is linked with, sorted.
func links(d *spdx.Document) map[string][]string {
	names := map[common.ElementID]*spdx.Package{}
	for _, p := range d.Packages {
		names[p.PackageSPDXIdentifier] = p
	}
	linked := map[string][]string{}
	for _, r := range d.Relationships {
		if r.Relationship == common.TypeRelationshipStaticLink {
			program, m := names[r.RefA.ElementRefID].PackageName, names[r.RefB.ElementRefID]
			linked[program] = append(linked[program], m.PackageName+"@"+m.PackageVersion)
		}
	}
	for _, list := range linked {
		slices.Sort(list)
	}
	return linked
}

func checksum(d *spdx.Document, program string) string {
	for _, p := range d.Packages {
		if p.PackageName == program && len(p.PackageChecksums) == 1 {
			return p.PackageChecksums[0].Value
		}
	}
	return ""
}

func TestTheBillIsWhole(t *testing.T) {
	eachArchitecture(t, func(t *testing.T, arch string) {
		d := bill(t, arch)
		seen := map[common.ElementID]bool{"DOCUMENT": true}
		for _, p := range d.Packages {
			if seen[p.PackageSPDXIdentifier] {
				t.Errorf("%s: two packages have this identifier", p.PackageSPDXIdentifier)
			}
			seen[p.PackageSPDXIdentifier] = true
			if p.PackageSupplier == nil {
				t.Errorf("%s has no supplier, not even an unknown one", p.PackageName)
			}
			if l := p.PackageLicenseDeclared; l == "NOASSERTION" || l == "" || p.PackageVersion == "" || p.PackageDownloadLocation == "" {
				t.Errorf("%s: version %q, licence %q, from %q: none may be missing", p.PackageName, p.PackageVersion, l, p.PackageDownloadLocation)
			}
		}
		for _, r := range d.Relationships {
			if !seen[r.RefA.ElementRefID] || !seen[r.RefB.ElementRefID] {
				t.Errorf("a relation of %s and %s, one of which is not there", r.RefA.ElementRefID, r.RefB.ElementRefID)
			}
		}
		if d.SPDXVersion != "SPDX-2.3" || d.CreationInfo.Created != "2026-03-04T05:06:07Z" {
			t.Errorf("%s of %s", d.SPDXVersion, d.CreationInfo.Created)
		}
	})
}
