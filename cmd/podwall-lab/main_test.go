// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"
	"testing"
)

func TestAnAnswerThatNobodyReadsEndsTheRun(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ended := false
	a := answer{w, func() { ended = true }}
	if _, err := a.Write([]byte("read")); err != nil || ended {
		t.Errorf("while somebody reads: %v, ended %t", err, ended)
	}
	_ = r.Close() // nothing was lost
	if _, err := a.Write([]byte("unread")); err == nil || !ended {
		t.Errorf("when nobody reads: %v, ended %t", err, ended)
	}
}
