// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/agent/services"
	"github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// failing is a kernel whose first passes fail.
type failing struct {
	services.Kernel
	passes []error
}

func (f *failing) Apply(context.Context, tables.Desired) (tables.Report, error) {
	err := f.passes[0]
	f.passes = f.passes[1:]
	return tables.Report{Changes: 7}, err
}

// What an agent with IPVS left serves until the tables stand. Then it goes, once.
func TestIPVSGoesWhenTheTablesStand(t *testing.T) {
	no := errors.New("no")
	kernel := &failing{passes: []error{no, no, nil, nil, nil, no, nil}}
	var removed []int
	left := 7
	a := &alone{Kernel: kernel, log: slog.New(slog.DiscardHandler), remove: func(*slog.Logger) error {
		removed = append(removed, 7-left)
		if len(removed) < 3 {
			return no
		}
		return nil
	}}
	for _, want := range slices.Clone(kernel.passes) {
		left = len(kernel.passes)
		report, err := a.Apply(t.Context(), tables.Desired{})
		if !errors.Is(err, want) || report.Changes != 7 {
			t.Errorf("pass %d: %+v, %v, want the kernel's own answer", 7-left, report, err)
		}
	}
	if !slices.Equal(removed, []int{2, 3, 4}) {
		t.Errorf("removed in the passes %v, want those that succeeded until it was gone", removed)
	}
}

func TestTheCureNamesTheModule(t *testing.T) {
	for err, want := range map[error]string{fmt.Errorf("opening: %w", ipvs.ErrNone): "modprobe ip_vs",
		errors.New("nf_tables"): "a kernel with nf_tables"} {
		if got := cureOf(err); !strings.Contains(got, want) {
			t.Errorf("%v: got %q, want %q in it", err, got, want)
		}
	}
}
