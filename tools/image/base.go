// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"runtime/debug"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/podwall/podwall/tools/internal/pack"
	"github.com/podwall/podwall/tools/internal/sbom"
)

// Users that files and processes of the image can have. None can log in.
const (
	passwd = "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	group  = "root:x:0:\nnogroup:x:65534:\n"
)

// baseFiles returns what the programs expect of an operating system.
func baseFiles() ([]pack.File, error) {
	roots, err := certificates()
	return []pack.File{{Name: "etc/group", Mode: 0o644, Text: []byte(group)}, {Name: "etc/passwd", Mode: 0o644,
		Text: []byte(passwd)},
		{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Text: roots}}, err
}

// bundleModule has the certificates that Mozilla trusts. They come from a Go
// module, and not from the building machine, so that go.sum says which they are.
const bundleModule = "golang.org/x/crypto/x509roots/fallback"

// rootsModule says in the list of contents where the certificates come from.
func rootsModule() sbom.Data {
	d := sbom.Data{Path: bundleModule, Licence: "BSD-3-Clause", Name: "/etc/ssl/certs/ca-certificates.crt"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == d.Path {
				d.Version = m.Version
			}
		}
	}
	return d
}

// certificates returns the trusted roots as PEM. A root that is trusted under a
// condition only is left out: PEM cannot say the condition.
func certificates() ([]byte, error) {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		c, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("trusted certificate: %w", err)
		}
		fmt.Fprintf(&b, "# %s\n", c.Subject)
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, fmt.Errorf("trusted certificate: %w", err)
		}
	}
	return b.Bytes(), nil
}
