// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/podwall/podwall/tools/internal/licences"
)

// sums is the file that names all others with their checksums.
const sums = "SHA256SUMS"

// purpose is what a signature is for: one that was made for something else is
// worth nothing here.
const purpose = "podwall-release"

func digest(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}

// checksums returns the file that `sha256sum -c` reads.
func checksums(files []content) content {
	files = slices.SortedFunc(slices.Values(files), func(a, b content) int { return cmp.Compare(a.name, b.name) })
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s\n", digest(f.text), f.name)
	}
	return content{sums, 0o644, b.Bytes()}
}

type object map[string]any

// provenance returns an in-toto statement in SLSA's words that says who built
// the files from what. It has neither the time of the build nor a number, so
// that whoever builds again can compare.
func (o options) provenance(files []content) (content, error) {
	var subjects []object
	for _, f := range files {
		subjects = append(subjects, object{"name": f.name, "digest": object{"sha256": digest(f.text)}})
	}
	const source = "https://" + licences.Own
	external := object{"version": o.version, "tag": o.tag, "epoch": o.created.Format(time.RFC3339)}
	if o.url != "" {
		external["url"] = o.url
	}
	text, err := json.MarshalIndent(object{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       subjects,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": object{
			"buildDefinition": object{
				"buildType":            source + "/blob/main/docs/release.md",
				"externalParameters":   external,
				"internalParameters":   object{"go": runtime.Version()},
				"resolvedDependencies": []object{{"uri": "git+" + source, "digest": object{"gitCommit": o.revision}}},
			},
			"runDetails": object{"builder": object{"id": o.builder}},
		},
	}, "", " ")
	if err != nil {
		return content{}, fmt.Errorf("provenance: %w", err)
	}
	return content{"podwall-" + o.version + ".provenance.json", 0o644, append(text, '\n')}, nil
}

// sign writes a signature beside a file. It asks ssh-keygen, which knows keys in
// files, in agents and in hardware.
func sign(ctx context.Context, key, name string) error {
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", purpose, name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("signing needs ssh-keygen: install openssh-client")
	}
	if err != nil {
		return fmt.Errorf("signing with %s: %w", key, err)
	}
	return nil
}
