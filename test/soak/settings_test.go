// SPDX-License-Identifier: Apache-2.0

//go:build linux

package soak_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// The environment of a run. PODWALL_SOAK=1 makes it long. The others override
// what a run takes by itself. The n-th case has the n-th seed after the first,
// so -run Kernel/bridge/nat with the seed of a failure begins with that failure.
const (
	seedVariable  = "PODWALL_SOAK_SEED"
	casesVariable = "PODWALL_SOAK_CASES" // states on the kernel
	stepsVariable = "PODWALL_SOAK_STEPS" // a regular expression: the steps whose records are compared
)

// settings of a run. A state is one cluster at one moment; it is what a case is
// in the figures.
type settings struct {
	long     bool
	seed     uint64
	verdicts int // by programs, at least
	states   int // on the kernel, at least
	steps    *regexp.Regexp
}

// shortSeed is the seed of a short run. It was chosen so that the few cases on
// the kernel show a mistake that seldom decides: holes of blocks that are
// ignored.
const shortSeed = 1005

func readSettings(t *testing.T) settings {
	t.Helper()
	s := settings{seed: shortSeed, verdicts: 20_000, states: 20}
	if soak.Long() {
		s = settings{long: true, seed: uint64(time.Now().Unix()), verdicts: 10_000_000, states: 2_000}
	}
	if text := os.Getenv(seedVariable); text != "" {
		seed, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
		s.seed = seed
	}
	if text := os.Getenv(casesVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s is %q, want a number above 0", casesVariable, text)
		}
		s.states = n
	}
	var err error
	if s.steps, err = regexp.Compile(os.Getenv(stepsVariable)); err != nil {
		t.Fatalf("%s: %v", stepsVariable, err)
	}
	return s
}
