// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The further images of a cluster with Options.Tools, by the names that upstream's specs have for them.
const (
	busybox      = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
	nginx        = "registry.k8s.io/e2e-test-images/nginx:1.14-4" // never called, so agnhost stands in
	pauseOfSpecs = "registry.k8s.io/pause:3.10.1"
	outOfOrder   = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4"
)

// outOfOrderProgram is in the bin directory: it answers with packets outside of the window.
const outOfOrderProgram = "regression-issue-74839"

// toolPrograms are this machine's programs for pods, and where the image has them. Applets of busybox are added
// below bin. The shell is not that of busybox, which prefers its own nc to every other; its wget fails where the
// machine's libraries are missing.
var toolPrograms = map[string]string{"busybox": "bin/busybox", "dash": "bin/dash", "curl": "usr/bin/curl",
	"wget": "usr/bin/wget", "nc.openbsd": "usr/bin/nc"}

// tools returns the files and links that give an image a shell, curl, wget and nc, with the libraries that these need.
func tools() (files, links map[string]string, err error) {
	files, links = map[string]string{}, map[string]string{}
	for name, to := range toolPrograms {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %s is not installed: run `hack/prepare e2e`", ErrCannot, name)
		}
		files[to] = path
		libraries, err := librariesOf(path)
		if err != nil {
			return nil, nil, err
		}
		for _, l := range libraries {
			files[strings.TrimPrefix(l, "/")] = l
		}
	}
	list, err := exec.Command(files["bin/busybox"], "--list").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("asking busybox for its applets: %w", err)
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if !slices.Contains([]string{"busybox", "nc", "wget"}, applet) {
			links["bin/"+applet] = "busybox"
		}
	}
	links["bin/sh"] = "dash"
	return files, links, nil
}

// librariesOf returns the files that a program loads when it starts, the loader included.
func librariesOf(program string) (list []string, err error) {
	text, err := exec.Command("ldd", program).CombinedOutput()
	if strings.Contains(string(text), "not a dynamic executable") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the libraries of %s: %w: %s", program, err, text)
	}
	for line := range strings.Lines(string(text)) {
		for word := range strings.FieldsSeq(line) {
			if filepath.IsAbs(word) {
				list = append(list, word)
			}
		}
	}
	return list, nil
}

// toolImages writes agnhost with tools and the images that only some specs need, and returns their files.
func (c *Cluster) toolImages() (list []string, err error) {
	more, links, err := tools()
	if err != nil {
		return nil, err
	}
	bin := c.options.Bin
	if _, err := os.Stat(filepath.Join(bin, outOfOrderProgram)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not built: run `make netpol`", ErrCannot, outOfOrderProgram)
	}
	files := maps.Clone(more)
	files["agnhost"], links["agnhost-2"] = filepath.Join(bin, "agnhost"), "agnhost"
	for _, i := range []Image{
		{Name: Agnhost, Files: files, Links: links, Entrypoint: "/agnhost", Args: []string{"pause"}},
		{Name: nginx, Files: files, Links: links, Entrypoint: "/agnhost", Args: []string{"pause"}},
		{Name: pauseOfSpecs, Files: map[string]string{"pause": filepath.Join(bin, "pause")}, Entrypoint: "/pause"},
		{Name: busybox, Files: files, Links: links, Entrypoint: "/bin/sh"},
		{Name: outOfOrder, Files: map[string]string{outOfOrderProgram: filepath.Join(bin, outOfOrderProgram)},
			Entrypoint: "/" + outOfOrderProgram},
	} {
		name, _, _ := strings.Cut(filepath.Base(i.Name), ":")
		name = "specs-" + name // there is another pause
		file := filepath.Join(c.dir, name+".tar")
		list, err = append(list, file), errors.Join(err, i.Write(file))
	}
	return list, err
}
