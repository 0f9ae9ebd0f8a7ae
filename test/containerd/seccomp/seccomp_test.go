// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package seccomp

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const file = "../../privilege/testdata/seccomp.json"

var update = flag.Bool("update", false, "write the file anew")

// A capability can add to the profile. CAP_NET_ADMIN does not, so that the gate's
// container, which has none, gets the same.
func TestTheProfileIsContainerds(t *testing.T) {
	var want []byte
	for _, capabilities := range [][]string{{"CAP_NET_ADMIN"}, nil} {
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}, Linux: &specs.Linux{}}
		text, err := json.MarshalIndent(seccomp.DefaultProfile(spec), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if text = append(text, '\n'); want != nil && !bytes.Equal(text, want) {
			t.Error("CAP_NET_ADMIN changes the profile")
		} else if want == nil {
			want = text
		}
	}
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not containerd's profile any more: go test ./seccomp -update", file)
	}
}
