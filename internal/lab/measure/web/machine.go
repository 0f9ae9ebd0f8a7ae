// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/stat, USER_HZ. It is the same on every kernel.
const tick = 10 * time.Millisecond

// machineTime is what all processors of the machine have done so far: processes,
// interrupts and softirqs, in ticks (proc_stat(5)).
func machineTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("reading what the processors did: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return busy(first)
}

// busy adds up a line of /proc/stat: user, nice, system, irq and softirq. It
// leaves out idle, iowait, what a hypervisor stole, and guests, which are in
// user already.
func busy(line string) (time.Duration, error) {
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("reading what the processors did: %q is not the sum of them", line)
	}
	ticks := 0
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, fmt.Errorf("reading what the processors did: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}
