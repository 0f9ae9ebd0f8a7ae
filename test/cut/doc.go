// SPDX-License-Identifier: Apache-2.0

// Package cut holds the tests in which connections exist when a policy changes:
// what is denied then must end at once and stay cut although both ends go on to
// talk, and what is still allowed must not lose a packet. The real agent runs in
// the nodes of package lab, on the real kernel.
//
// What counts is what enters a pod's namespace, not what a program there reads.
// The package holds no code of the program and starts nothing outside of its own
// namespaces.
package cut
