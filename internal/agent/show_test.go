// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/agent/flows"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
)

// fakeRules stands for the datapath.
type fakeRules string

func (t fakeRules) Ruleset(out io.Writer) error {
	_, err := io.WriteString(out, string(t))
	return err
}

// Root reads the status, the metrics and the rules of the agent of the node, also where it has no port.
func TestWhatRootIsShown(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		if err := Show(t.Context(), config.Config{Show: config.ShowStatus}, io.Discard); err == nil ||
			!strings.Contains(err.Error(), "no podwall-agent answers") {
			t.Errorf("without an agent: %v", err)
		}
		_, o, _ := states()
		s := &flows.Server{Node: "n", Denied: func() (uint64, error) { return 0, nil },
			Pages: pages(o, fakeRules("table x {}"), &proxy{}, fakeRules("table y {}"))}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		if err := s.Listen(ctx); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- s.Run(ctx) }()
		for show, want := range map[config.Show]string{config.ShowStatus: `"schema": "podwall.status/v1"`,
			config.ShowMetrics: "\npodwall_ready 1\n", config.ShowRuleset: "table x {}table y {}"} {
			var out bytes.Buffer
			if err := Show(t.Context(), config.Config{Show: show}, &out); err != nil || !strings.Contains(out.String(), want) {
				t.Errorf("%s: %v\n%s", show, err, fmt.Sprint(&out))
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
