// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// kernel writes rules into the network namespace of the calling thread, and
// takes them away again.
type kernel struct {
	iptables string
	rules    rules
	hooked   bool
}

// write loads the sets, then all chains in one transaction.
func (k *kernel) write() error {
	if _, err := tool(k.rules.setText(), "ipset", "restore", "-exist"); err != nil {
		return err
	}
	if _, err := tool(k.rules.chainText(), k.iptables+"-restore", "-w", "--noflush"); err != nil {
		return err
	}
	k.hooked = true
	return nil
}

// remove is for after write, also if that failed.
func (k *kernel) remove() error {
	var errs []error
	if k.hooked {
		_, err := tool(k.rules.removalText(), k.iptables+"-restore", "-w", "--noflush")
		// iptables for nftables also removes the empty hooks by this, else the
		// packets of whoever is measured next would meet them.
		_, also := tool("", k.iptables, "-w", "-X")
		errs = append(errs, err, also)
	}
	return errors.Join(append(errs, k.destroySets())...)
}

// destroySets tries for a while: the kernel lets go of the sets of a removed
// nftables rule a little later.
func (k *kernel) destroySets() (err error) {
	const tries, pause = 100, 20 * time.Millisecond
	for range tries {
		var out string
		if out, err = tool("", "ipset", "list", "-name"); err != nil {
			return err
		}
		there := strings.Fields(out)
		var b strings.Builder
		for _, s := range k.rules.sets {
			if slices.Contains(there, s.name) {
				fmt.Fprintf(&b, "destroy %s\n", s.name)
			}
		}
		if b.Len() == 0 {
			return nil
		}
		if _, err = tool(b.String(), "ipset", "restore"); err == nil {
			return nil
		}
		time.Sleep(pause)
	}
	return err
}

// tool runs a program with text as its input.
func tool(text, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running %s: %w\n%s", cmd, err, complaint.String())
	}
	return out.String(), nil
}
