// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

// Remembered is how many sandboxes the gate holds.
func (d *Gate) Remembered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pods)
}
