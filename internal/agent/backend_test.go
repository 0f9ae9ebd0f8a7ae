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

// What an agent with IPVS left serves until the tables stand. Then it goes, once, and connections that it served are
// looked at, also after a removal of a part.
func TestIPVSGoesWhenTheTablesStand(t *testing.T) {
	no := errors.New("no")
	kernel := &failing{passes: []error{no, no, nil, nil, nil, nil, nil, no, nil}}
	done := func() int { return 9 - len(kernel.passes) }
	var removed, resettled []int
	a := &alone{Kernel: kernel, log: slog.New(slog.DiscardHandler), resettle: func() { resettled = append(resettled, done()) },
		remove: func(*slog.Logger) (bool, error) {
			removed = append(removed, done())
			switch len(removed) {
			case 1: // nothing
				return false, no
			case 2: // a part
				return true, no
			}
			return true, nil
		}}
	for i, want := range []struct {
		err     error
		changes int
	}{{no, 7}, {no, 7}, {nil, 7}, {nil, 14}, {nil, 14}, {no, 7}, {nil, 7}} {
		report, err := a.Apply(t.Context(), tables.Desired{})
		if !errors.Is(err, want.err) || report.Changes != want.changes {
			t.Errorf("pass %d: %+v, %v, want what the kernel did and said", i, report, err)
		}
	}
	if !slices.Equal(removed, []int{3, 4, 6}) || !slices.Equal(resettled, []int{4, 6}) {
		t.Errorf("removed after %v, want those that succeeded until it was gone; looked again after %v", removed, resettled)
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
