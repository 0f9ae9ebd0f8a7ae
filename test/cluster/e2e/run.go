// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Run is one cluster from its start to its end: under what circumstances the
// rows of the report were found that name it.
type Run struct {
	Began          string  `json:"began"` // its name, since no two begin within a millisecond
	Combination    string  `json:"combination"`
	Machine        Machine `json:"machine"`
	Seconds        float64 `json:"seconds"`
	Image          string  `json:"image"`  // commit of which the image of the agent was built
	Commit         string  `json:"commit"` // checkout: harness and manifests
	LoadBegin      float64 `json:"loadAtStart"`
	LoadEnd        float64 `json:"loadAtEnd"`
	ClusterSeconds float64 `json:"clusterReadySeconds"` // from nothing to nodes that are ready
	InstallSeconds float64 `json:"installSeconds"`      // from apply to agents that are ready
	Agents         []Agent `json:"agents,omitempty"`    // after all that
	Error          string  `json:"error,omitempty"`

	since time.Time
}

// newRun says what is known at the beginning.
func (s *settings) newRun(combination string) (*Run, error) {
	now := time.Now()
	r := &Run{Combination: combination, Began: now.UTC().Format("2006-01-02T15:04:05.000Z"), since: now}
	commit, err := exec.Command("git", "-C", s.root, "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return nil, fmt.Errorf("asking git for the commit: %w", err)
	}
	r.Commit = strings.TrimSpace(string(commit))
	if r.Image, err = revision(s.image()); err != nil && !s.process {
		return nil, fmt.Errorf("asking %s for its commit: %w", s.image(), err)
	}
	if r.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	r.LoadBegin, err = load()
	return r, err
}

// now brings up to date what changes while it runs.
func (r *Run) now() (err error) {
	r.Seconds = time.Since(r.since).Seconds()
	r.LoadEnd, err = load()
	return err
}

// load is that of the last minute.
func load() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	one, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(one, 64)
}

// revision reads from an image's archive of which commit it was built.
func revision(archive string) (string, error) {
	var list []struct{ Config string }
	if err := member(archive, "manifest.json", &list); err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fmt.Errorf("it has %d images, not one", len(list))
	}
	var image struct {
		Config struct{ Labels map[string]string }
	}
	if err := member(archive, list[0].Config, &image); err != nil {
		return "", err
	}
	commit := image.Config.Labels["org.opencontainers.image.revision"]
	if commit == "" {
		return "", errors.New("it does not name a commit: build it with `make image`")
	}
	return commit[:min(len(commit), 12)], nil
}

// member reads a JSON file of an archive.
func member(archive, name string, to any) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("it has no %s", name)
		case err != nil:
			return err
		case h.Name == name:
			return json.NewDecoder(r).Decode(to)
		}
	}
}
