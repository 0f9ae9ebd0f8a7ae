// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/netpol/decide"
)

// The options of a default agent are the zero value, so that whoever leaves them out, as
// podwall-lab ruleset does, decides as the agent on a node.
func TestTheDefaultFlagsAreTheZeroOptions(t *testing.T) {
	if got := datapathOptions(config.Default()).Options; got != (decide.Options{}) {
		t.Errorf("the default flags mean %+v", got)
	}
}
