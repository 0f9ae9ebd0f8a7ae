// SPDX-License-Identifier: Apache-2.0

// Package docs holds the documents against the programs: every command line, flag, file,
// metric and key that a page names exists. ADRs and reports are left out: they say what was
// true at their time.
//
// testdata/services.tsv says of each sentence of docs/services.md which test tries it.
//
// The README's commands for manifests of one's own are run here. The others are read by the
// programs and not done: they need a cluster, a node or an hour. The README's installation
// is run by test/cluster, docs/emergency.md by test/faults, docs/e2e.md and docs/performance.md
// by whoever writes their figures.
package docs
