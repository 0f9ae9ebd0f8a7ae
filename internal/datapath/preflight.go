// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrUnsupported means that this machine cannot enforce; the message names the missing part.
var ErrUnsupported = errors.New("this node cannot enforce network policies")

// The oldest kernel that the datapath was tested on. Nat chains in inet tables exist since 5.2, and the
// input interface at postrouting since 5.5.
const minMajor, minMinor = 5, 10

func preflight() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("reading the kernel version: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	return checkRelease(release)
}

func checkRelease(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return nil // an unknown scheme: the self-test decides
	}
	if major < minMajor || major == minMajor && minor < minMinor {
		return fmt.Errorf("%w: kernel %s is too old; %d.%d or newer is needed", ErrUnsupported, release, minMajor,
			minMinor)
	}
	return nil
}

// explainFirst translates the error of the first commit. No object of ours existed, so the object that the kernel
// does not find is a missing part of the kernel.
func (d *Datapath) explainFirst(err error) error {
	missing := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) ||
		errors.Is(err, unix.EAFNOSUPPORT)
	if d.table.actual != nil || !missing {
		return err
	}
	return fmt.Errorf("%w: the kernel lacks a part of nftables that the rules need (%v); "+
		"CONFIG_NF_TABLES_INET, NFT_CT, NFT_NAT, NFT_FIB_INET and NF_NAT are needed", ErrUnsupported, err)
}

// unsupported translates the kernel's answers to the first nftables request.
func unsupported(err error) error {
	switch {
	case denied(err):
		return fmt.Errorf("%w: no right to use nftables; %s (%w)", ErrUnsupported, cureForRights(hasAdmin()), err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: the kernel has no nftables; "+
			"load nf_tables or use a kernel with CONFIG_NF_TABLES_INET (%w)", ErrUnsupported, err)
	}
	return err
}
