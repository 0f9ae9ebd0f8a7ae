// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

// Remembered is how many sandboxes the door holds.
func (d *Door) Remembered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pods)
}
