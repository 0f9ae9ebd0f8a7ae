// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package sysctl reads and writes kernel settings through their files.
//
// It is an edge: links and datapath use it for the few settings that netlink does not offer. Below net the
// kernel shows the settings of the network namespace of the process that opens the file, wherever the
// directory is mounted. So an agent in a container reaches the node's settings through a mount of the
// node's /proc/sys/net, although the container's /proc/sys is read-only.
package sysctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a directory with the settings; empty means Default.
type Dir string

// Default is where the kernel offers the settings to every process.
const Default Dir = "/proc/sys"

// Path returns the file of a setting, as in net/ipv4/ip_forward.
func (d Dir) Path(name string) string {
	if d == "" {
		d = Default
	}
	return filepath.Join(string(d), name)
}

// Has reports whether the kernel has the setting.
func (d Dir) Has(name string) bool {
	_, err := os.Stat(d.Path(name))
	return err == nil
}

// Read returns the value of a setting.
func (d Dir) Read(name string) (string, error) {
	text, err := os.ReadFile(d.Path(name))
	if err != nil {
		return "", fmt.Errorf("reading a sysctl: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Write sets a setting. It never creates a file: a missing setting is an error.
func (d Dir) Write(name, value string) error {
	f, err := os.OpenFile(d.Path(name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("writing a sysctl: %w", err)
	}
	_, err = f.WriteString(value)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("writing a sysctl: %w", err)
	}
	return nil
}

// Check makes sure that the directory holds the kernel's network settings and is not an ordinary directory.
func (d Dir) Check() error {
	const always = "net/core"
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Path(always), &fs); err != nil {
		return fmt.Errorf("looking for sysctls: %w", &os.PathError{Op: "stat", Path: d.Path(always), Err: err})
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("looking for sysctls: %s is a directory of another file system", d.Path(always))
	}
	return nil
}
