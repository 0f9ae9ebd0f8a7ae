// SPDX-License-Identifier: Apache-2.0

// Package privilege holds the tests of what the agent and the gate's installer
// are allowed to do: they run under runc with exactly the rights, the mounts and
// the seccomp profile that the manifest asks for, on nodes of a lab, against an
// API server with RBAC. Then each right, mount and rule is taken away once, and
// the programs must say clearly what is missing.
//
// What a container runtime adds by itself (masked paths, a read-only /proc/sys, the
// default seccomp profile) is written down here as containerd does it; test/cluster
// has the same with containerd itself. The package holds no code of the product.
package privilege
