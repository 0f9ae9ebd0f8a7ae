// SPDX-License-Identifier: Apache-2.0

// Package soak holds the counted runs of random cases: random clusters,
// policies and changes, judged by the oracle, by the compiled programs, and by
// the kernel with real packets. Every run says its seeds, how much it compared
// and how many verdicts differ; the right number is none.
//
// It owns the counting and the report of a difference. The cases come from
// testkit/gencase, the judges from packages cases and trial. It holds no code
// of the programs and judges nothing by itself. A normal test run is short and
// has a fixed seed; `make soak` is long and takes its seed from the clock.
package soak
