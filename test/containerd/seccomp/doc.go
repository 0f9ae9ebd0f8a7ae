// SPDX-License-Identifier: Apache-2.0

// Package seccomp compares the seccomp profile that test/privilege confines
// containers with, a file there, with the default of containerd, to which
// RuntimeDefault in a manifest leads. It holds no code of the product. When
// containerd's changes: go test ./seccomp -update, and read the difference.
package seccomp
