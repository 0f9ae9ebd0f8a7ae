// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/krew/pkg/constants"
	"sigs.k8s.io/krew/pkg/index"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/tools/internal/licences"
	"github.com/podwall/podwall/tools/internal/pack"
	"github.com/podwall/podwall/tools/internal/programs"
)

// licenceFile and thirdParty are the licences, in a release and in each archive.
const (
	licenceFile = "LICENSE"
	thirdParty  = "THIRD-PARTY"
)

// krewFile is the manifest for krew. An index has it as plugins/podwall.yaml; in
// a release that is the name of what is applied to a cluster.
const krewFile = "krew-podwall.yaml"

func (o options) licence() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return nil, fmt.Errorf("reading the licence: %w", err)
	}
	return text, nil
}

// archiveName returns the name of the archive with kubectl-podwall for a system.
func (o options) archiveName(s programs.System) string {
	kind := "tar.gz"
	if s.OS == "windows" {
		kind = "zip"
	}
	return fmt.Sprintf("%s-%s-%s.%s", programs.Plugin, o.version, s, kind)
}

// archive returns kubectl-podwall with the licences, which must be passed on
// with it.
func (o options) archive(s programs.System, program []byte, linked []licences.Module) (content, error) {
	own, err := o.licence()
	if err != nil {
		return content{}, err
	}
	files := []pack.File{
		{Name: s.File(programs.Plugin), Mode: 0o755, Text: program},
		{Name: licenceFile, Mode: 0o644, Text: own},
		{Name: thirdParty, Mode: 0o644, Text: licences.Text(linked)},
	}
	write := pack.TarGzip
	if s.OS == "windows" {
		write = pack.Zip
	}
	text, err := write(files)
	if err != nil {
		return content{}, fmt.Errorf("archive for %s: %w", s, err)
	}
	return content{o.archiveName(s), 0o644, text}, nil
}

// checkURL refuses what krew could not download or compare.
func (o options) checkURL() error {
	if o.url == "" {
		return nil
	}
	u, err := url.Parse(o.url)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(o.url, "?#") {
		return fmt.Errorf("-url %q: want https://HOST/PATH, the directory that the release is uploaded to", o.url)
	}
	if _, err := version.ParseSemantic(o.version); err != nil || !strings.HasPrefix(o.version, "v") {
		return fmt.Errorf("version %q: krew wants vMAJOR.MINOR.PATCH: build at a tag, or leave -url (RELEASE_URL) out",
			o.version)
	}
	return nil
}

// krew returns the manifest from which krew installs kubectl-podwall, with the
// checksums of the archives among files; none if their address is not known.
func (o options) krew(files []content) ([]content, error) {
	if o.url == "" {
		fmt.Fprintln(o.log, "release: no manifest for krew: -url (RELEASE_URL) is empty")
		return nil, nil
	}
	plugin := o.plugin()
	for _, s := range programs.Systems() {
		i := slices.IndexFunc(files, func(f content) bool { return f.name == o.archiveName(s) })
		if i < 0 {
			return nil, errors.New("manifest for krew: there is no " + o.archiveName(s))
		}
		plugin.Spec.Platforms = append(plugin.Spec.Platforms, o.platform(s, digest(files[i].text)))
	}
	text, err := yaml.Marshal(plugin)
	if err != nil {
		return nil, fmt.Errorf("manifest for krew: %w", err)
	}
	return []content{{krewFile, 0o644, text}}, nil
}

func (o options) plugin() index.Plugin {
	const home = "https://" + licences.Own
	return index.Plugin{
		TypeMeta:   metav1.TypeMeta{APIVersion: constants.CurrentAPIVersion, Kind: constants.PluginKind},
		ObjectMeta: metav1.ObjectMeta{Name: strings.TrimPrefix(programs.Plugin, "kubectl-")},
		Spec: index.PluginSpec{
			Version:          o.version,
			Homepage:         home + "/blob/main/docs/kubectl.md",
			ShortDescription: "Explain which network policies allow or deny a flow",
			Description: "Says why network policies allow or deny a flow between pods, Services, nodes\n" +
				"and addresses, and which change would allow it, also as a page in a browser\n" +
				"of this machine (kubectl podwall ui). It reads a cluster or files,\n" +
				"and writes to neither, except for explain --probe --ephemeral.\n" +
				"The cluster does not have to run podwall.\n",
		},
	}
}

func (o options) platform(s programs.System, sum string) index.Platform {
	program := s.File(programs.Plugin)
	p := index.Platform{
		URI:      strings.TrimSuffix(o.url, "/") + "/" + o.archiveName(s),
		Sha256:   sum,
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"os": s.OS, "arch": s.Arch}},
		Bin:      program,
	}
	for _, file := range []string{program, licenceFile, thirdParty} {
		p.Files = append(p.Files, index.FileOperation{From: file, To: "."})
	}
	return p
}
