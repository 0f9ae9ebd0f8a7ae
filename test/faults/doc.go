// SPDX-License-Identifier: Apache-2.0

// Package faults holds the tests in which something goes wrong while packets
// flow: the agent is stopped, killed and upgraded, other programs write into
// the kernel's nftables and into our table, the API server goes away, stalls and
// forgets, and the kernel refuses.
//
// Two flows must always pass and two must never pass. What passes is counted
// where it arrives, what does not by the agent's drop counters; no verdict is
// made from a time-out. The package holds no code of the program and starts
// nothing outside of its own namespaces. PODWALL_SOAK=1 makes the runs long.
package faults
