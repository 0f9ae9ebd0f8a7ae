// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"

	"golang.org/x/sys/unix"
)

const needsAdmin = "give the agent CAP_NET_ADMIN in the host's network namespace"

// cureForSetting describes how to make a setting that the agent could not write. The argument has sysctl
// syntax without the prefix "net.".
func cureForSetting(setting string, err error) string {
	byHand := "sysctl net." + setting + " on the node"
	switch {
	case errors.Is(err, unix.EROFS):
		return byHand + ", or let the agent do it: mount the node's /proc/sys/net into its container at DIR/net, " +
			"writable, and run it with --sysctl-root=DIR"
	case denied(err):
		return byHand + ", or " + needsAdmin
	}
	return byHand
}

// denied reports whether the error means a missing right.
func denied(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// cureForRights explains why the kernel denies us nftables.
func cureForRights(admin bool) string {
	if !admin {
		return "CAP_NET_ADMIN is missing: add NET_ADMIN to the container's securityContext.capabilities, " +
			"or run as root on the node"
	}
	return "this process has CAP_NET_ADMIN, so a profile of seccomp, AppArmor or SELinux forbids it, " +
		"or a user namespace that is not the one of the node's network"
}

// hasAdmin reports whether this thread has CAP_NET_ADMIN. All threads have the same capabilities.
func hasAdmin() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities below 32, and above
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false
	}
	return sets[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}
