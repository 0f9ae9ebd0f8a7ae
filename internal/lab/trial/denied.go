// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"

	"github.com/podwall/podwall/internal/netpol/denied"
)

// Denied returns the records of denied flows of all nodes, and what each node says of them all. The agents must
// run with --denied-flows-group; they make records half a second after the packets.
func (t *Trial) Denied(ctx context.Context) (list []denied.Record, all []denied.Summary, err error) {
	for _, n := range t.nodes {
		cmd := exec.CommandContext(ctx, t.cfg.Agent, "--list-denied-flows=1h")
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := t.bed.Node(n.name).NS.Start(cmd); err != nil {
			return nil, nil, err
		}
		if err := cmd.Wait(); err != nil {
			return nil, nil, fmt.Errorf("asking the agent of %s: %w: %s", n.name, err, said.String())
		}
		for lines := json.NewDecoder(&out); lines.More(); {
			var l denied.Line
			if err := lines.Decode(&l); err != nil {
				return nil, nil, fmt.Errorf("the agent of %s: %w", n.name, err)
			}
			switch {
			case l.Flow != nil:
				list = append(list, *l.Flow)
			case l.Summary != nil:
				all = append(all, *l.Summary)
			}
		}
	}
	return list, all, nil
}
