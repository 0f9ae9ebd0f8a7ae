// SPDX-License-Identifier: Apache-2.0

// Package gate holds the tests of the start gate: pods that are wired by real
// CNI plugins with podwall-gate behind them, run by the library that container
// runtimes use, beside a real agent on the real kernel. The agent reads
// manifests of pods without addresses: only the gate can tell it those.
//
// The package holds no code of the program. Pods and node are network
// namespaces of its own, without a way out.
package gate
