// SPDX-License-Identifier: Apache-2.0

// Package attack holds the tests that try to get past the policies: a pod that crafts its own packets and
// frames (CAP_NET_RAW), on the pod's node and on another one, against a closed pod, and a pod that must not
// send. The real agent runs in the nodes of package lab, on the real kernel, with routed and bridged
// wiring.
//
// A packet counts as stopped if it did not enter the destination's namespace and one of the agent's drop
// counters counted it. The package contains no code of the program and starts nothing outside of its own
// namespaces.
package attack
