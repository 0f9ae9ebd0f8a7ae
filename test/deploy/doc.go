// SPDX-License-Identifier: Apache-2.0

// Package deploy tests the manifests of deploy/ against what they are for: the
// agent's command line and a real API server. How they are rendered from the
// chart is tested in the module tools.
package deploy
