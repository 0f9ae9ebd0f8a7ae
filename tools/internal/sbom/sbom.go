// SPDX-License-Identifier: Apache-2.0

// Package sbom writes what programs consist of as SPDX 2.3. What they are linked
// with is read from the programs themselves.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"

	"github.com/podwall/podwall/tools/internal/licences"
)

// Subject is what a document describes: programs, and other contents.
type Subject struct {
	Name, Version string // of the image or the program
	Kind          string // an SPDX package purpose: CONTAINER or APPLICATION
	Created       time.Time
	Programs      []Program
	Data          []Data
}

// Program is an executable file that go built.
type Program struct {
	Name string // its path where it is installed
	Text []byte
}

// Data is a module whose data, not code, is contained, and where.
type Data struct{ Path, Version, Licence, Name string }

const (
	home    = "https://" + licences.Own
	unknown = "NOASSERTION"
)

// Write returns the document as JSON, the same bytes for the same subject.
func Write(s Subject, known []licences.Module) ([]byte, error) {
	d := document{licence: map[string]string{}, seen: map[common.ElementID]bool{}}
	for _, m := range known {
		d.licence[m.Path+"@"+m.Version] = m.Licence()
	}
	top := d.add(&spdx.Package{PackageName: s.Name, PackageVersion: s.Version, PrimaryPackagePurpose: s.Kind,
		PackageLicenseDeclared: "Apache-2.0", PackageHomePage: home})
	d.relate("DOCUMENT", common.TypeRelationshipDescribe, top)
	whole := sha256.New()
	for _, p := range s.Programs {
		if err := d.program(top, s.Version, p); err != nil {
			return nil, err
		}
		whole.Write(p.Text)
	}
	for _, c := range s.Data {
		p := module(c.Path, c.Version, c.Licence)
		p.PackageSourceInfo = "data from it is in " + c.Name
		d.relate(top, common.TypeRelationshipContains, d.add(p))
	}
	namespace := fmt.Sprintf("%s/spdx/%s-%s-%x", home, s.Name, s.Version, whole.Sum(nil)[:16])
	var b bytes.Buffer
	err := json.Write(&spdx.Document{SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense,
		SPDXIdentifier: "DOCUMENT",
		DocumentName:   s.Name + "-" + s.Version, DocumentNamespace: namespace, CreationInfo: &spdx.CreationInfo{
			Created:  s.Created.UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "podwall-image"}}},
		Packages: d.packages, Relationships: d.relations}, &b, json.Indent(" "))
	if err != nil {
		return nil, fmt.Errorf("writing SPDX: %w", err)
	}
	return b.Bytes(), nil
}

// document collects packages and how they belong together.
type document struct {
	licence   map[string]string // by path@version
	seen      map[common.ElementID]bool
	packages  []*spdx.Package
	relations []*spdx.Relationship
}

// reserved are the characters that an SPDX identifier cannot have.
var reserved = regexp.MustCompile(`[^A-Za-z0-9.]+`)

func (d *document) add(p *spdx.Package) common.ElementID {
	p.PackageSPDXIdentifier = common.ElementID(reserved.ReplaceAllString(p.PackageName+"-"+p.PackageVersion, "-"))
	if d.seen[p.PackageSPDXIdentifier] {
		return p.PackageSPDXIdentifier
	}
	d.seen[p.PackageSPDXIdentifier] = true
	if p.PackageLicenseDeclared == "" {
		p.PackageLicenseDeclared = unknown
	}
	p.PackageSupplier = &common.Supplier{Supplier: unknown}
	if p.PackageHomePage == home {
		p.PackageSupplier = &common.Supplier{SupplierType: "Organization", Supplier: "podwall"}
	}
	p.PackageDownloadLocation, p.PackageCopyrightText, p.PackageLicenseConcluded = unknown, unknown, unknown
	d.packages = append(d.packages, p)
	return p.PackageSPDXIdentifier
}

func (d *document) relate(from common.ElementID, how string, to common.ElementID) {
	d.relations = append(d.relations, &spdx.Relationship{RefA: common.DocElementID{ElementRefID: from},
		RefB: common.DocElementID{ElementRefID: to}, Relationship: how})
}

// program adds an executable and the modules that it says it is linked with.
func (d *document) program(top common.ElementID, version string, p Program) error {
	info, err := buildinfo.Read(bytes.NewReader(p.Text))
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	sum := sha256.Sum256(p.Text)
	own := d.add(&spdx.Package{PackageName: path.Base(p.Name), PackageVersion: version, PackageFileName: p.Name,
		PrimaryPackagePurpose: "APPLICATION", PackageLicenseDeclared: "Apache-2.0", PackageHomePage: home,
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(sum[:])}}})
	if own != top {
		d.relate(top, common.TypeRelationshipContains, own)
	}
	standard := strings.TrimPrefix(info.GoVersion, "go")
	linked := []*spdx.Package{module(licences.Standard, standard, d.licence[licences.Standard+"@"+standard])}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return fmt.Errorf("%s: module %s is replaced by %s: a release is built from published modules", p.Name,
				m.Path, m.Replace.Path)
		}
		l := module(m.Path, m.Version, d.licence[m.Path+"@"+m.Version])
		l.PackageSourceInfo = "checksum in go.sum: " + m.Sum
		linked = append(linked, l)
	}
	for _, l := range linked {
		d.relate(own, common.TypeRelationshipStaticLink, d.add(l))
	}
	return nil
}

func module(path, version, licence string) *spdx.Package {
	return &spdx.Package{PackageName: path, PackageVersion: version, PackageLicenseDeclared: licence,
		PrimaryPackagePurpose: "LIBRARY",
		PackageExternalReferences: []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager,
			RefType: common.TypePackageManagerPURL, Locator: "pkg:golang/" + path + "@" + strings.ReplaceAll(version,
				"+", "%2B")}}}
}
