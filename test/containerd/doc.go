// SPDX-License-Identifier: Apache-2.0

// Package containerd holds the tests of the start gate on a real container
// runtime: containerd with runc, driven as a kubelet drives it, real CNI
// plugins, and both fronts of podwall-gate. Pods run a small program of ours,
// from an image that the tests make.
//
// The package holds no code of the product and wants programs that `make
// containerd` builds. All of it runs in network, mount and process namespaces
// of its own, without a way out, and with files in memory: when the first
// process ends, the kernel takes the rest along. Only the cgroups are removed
// by hand.
package containerd
