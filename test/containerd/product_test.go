// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// product returns podwall's own image, as `make image` left it, and its name.
func product(t *testing.T, arch string) (members []member, tag string) {
	t.Helper()
	f, err := os.Open(absolute(t, "image/podwall-"+arch+".tar"))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skip("run `make image`")
	}
	check(t, err)
	defer f.Close()
	for a := tar.NewReader(f); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		text, err := io.ReadAll(a)
		check(t, err)
		if h.Typeflag == tar.TypeReg {
			members = append(members, member{h.Name, h.Mode, text})
		}
	}
	for _, m := range members {
		if m.name == "manifest.json" {
			var list []struct{ RepoTags []string }
			check(t, json.Unmarshal(m.data, &list))
			return members, list[0].RepoTags[0]
		}
	}
	t.Fatal("the archive has no manifest.json")
	return nil, ""
}

// without returns the members but for those with these names.
func without(members []member, names ...string) (rest []member) {
	for _, m := range members {
		if !strings.Contains(strings.Join(names, " "), m.name) {
			rest = append(rest, m)
		}
	}
	return rest
}

// A runtime takes the archive as either of the two things that it is, finds the
// image by the name that a manifest has, and starts it on a root that nobody can
// write to.
func TestTheProductsImageIsLoadedAndStarts(t *testing.T) {
	members, tag := product(t, runtime.GOARCH)
	for form, part := range map[string][]member{"oci": without(members, "manifest.json"),
		"docker": without(members, "oci-layout", "index.json"), "both": members} {
		t.Run(form, func(t *testing.T) {
			n := newNode(t, none)
			whole, err := archive(part...)
			check(t, errors.Join(err, os.WriteFile(n.path("podwall.tar"), whole, 0o600)))
			n.ctr("images", "import", "--local", n.path("podwall.tar"))
			ctx, cancel := n.cri.context()
			defer cancel()
			r, err := n.cri.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: tag}})
			check(t, err)
			if r.GetImage() == nil {
				t.Fatalf("a kubelet does not find %s, but only:\n%s", tag, n.ctr("images", "ls", "-q"))
			}
			out := n.ctr("run", "--rm", "--read-only", "--cgroup", cgroupParent()+"/product", "docker.io/"+tag, "product", "/usr/bin/podwall-agent", "--version")
			if !strings.Contains(out, "podwall-agent ") {
				t.Errorf("started, it prints %q", out)
			}
		})
	}
}

// It is of no use here, but a mirror passes it on.
func TestAnImageForAnotherProcessorIsLoaded(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	_, tag := product(t, other)
	n := newNode(t, none)
	n.ctr("images", "import", "--local", "--no-unpack", "--platform", "linux/"+other, absolute(t, "image/podwall-"+other+".tar"))
	if out := n.ctr("images", "ls", "name==docker.io/"+tag); !strings.Contains(out, "linux/"+other) {
		t.Errorf("loaded is only:\n%s", out)
	}
}
