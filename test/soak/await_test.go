// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podwall/podwall/internal/netpol/denied"
)

// A look that takes longer than the limit read the records of the first node before they were made. What is
// made until it ends is found by the next one.
func TestRecordsThatASlowLookMissesAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, looks := time.Now(), 0
		missing := map[subject]bool{{direction: "egress", verdict: denied.WouldDeny}: true}
		err := await(missing, time.Minute, func() error {
			looks++
			made := time.Since(began) > time.Second
			time.Sleep(2 * time.Minute)
			if made {
				clear(missing)
			}
			return nil
		})
		if err != nil || len(missing) > 0 || looks != 2 {
			t.Errorf("%d looks, missing %v, %v; want it found by the second one", looks, missing, err)
		}
	})
}

// A record that is never made is missing, and an agent that never answers is an error, at the limit.
func TestTheWaitForRecordsEnds(t *testing.T) {
	broken := errors.New("no answer")
	for _, want := range []error{nil, broken} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			missing := map[subject]bool{{direction: "ingress", verdict: denied.Denied}: want == nil}
			err := await(missing, time.Minute, func() error { return want })
			took := time.Since(began)
			if !errors.Is(err, want) || len(missing) != 1 || took < time.Minute || took > time.Minute+time.Second {
				t.Errorf("%v after %s, missing %v; want %v after a minute", err, took, missing, want)
			}
		})
	}
}
