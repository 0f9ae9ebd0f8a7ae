// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/logging"
)

// With -v=2 a change that the loop takes over is named.
func TestTheLoopNamesWhatChanged(t *testing.T) {
	var out bytes.Buffer
	r := &recorder{log: logging.New("text", 2, &out, false)}
	run(t, r, func(l *agent.Loop, settle func()) {
		settle()
		l.Store.Update(func(tx *cluster.Tx) { tx.SetPolicy(policy("closed")) })
		settle()
	})
	for _, want := range []string{`msg="objects at the start"`, "kind=NetworkPolicy object=shop/closed change=added"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &out)
		}
	}
}
