// SPDX-License-Identifier: Apache-2.0

package cases

import (
	"context"
	"fmt"
	"io"
)

// Check asks the backend about every step, in order, and hands each result on:
// differences as lines to report, raw results as JSON lines to observed (which
// may be nil). A step on which the backend fails is counted and reported, and
// the rest goes on; only a cancelled context or a failing writer ends the run.
func Check(ctx context.Context, list []Case, b Backend, report, observed io.Writer) (Summary, error) {
	var sum Summary
	for _, c := range list {
		for _, step := range c.Steps {
			if err := check(ctx, step, b, &sum, report, observed); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

func check(ctx context.Context, step *Step, b Backend, sum *Summary, report, observed io.Writer) error {
	o, err := b.Judge(ctx, step)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err != nil {
		sum.Failed++
		if _, err := fmt.Fprintf(report, "ERROR %s  %v\n", step.ID, err); err != nil {
			return fmt.Errorf("writing report: %w", err)
		}
	}
	for _, d := range sum.Add(step, o) {
		if _, err := fmt.Fprintln(report, d); err != nil {
			return fmt.Errorf("writing report: %w", err)
		}
	}
	if observed == nil {
		return nil
	}
	return o.Write(observed)
}
