// SPDX-License-Identifier: Apache-2.0

// Package attack holds the tests in which somebody tries to get past the
// policies: a pod that makes its own packets and frames (CAP_NET_RAW) on the
// pod's node and on another one, against a pod that is closed, and a pod that
// must not get out. The real agent runs in the nodes of package lab, on the real
// kernel, on a routed and on a bridged wiring.
//
// A packet counts as stopped when it did not enter the destination's namespace
// and one of the agent's drop counters moved for it. The package holds no code
// of the program and starts nothing outside of its own namespaces.
package attack
