// SPDX-License-Identifier: Apache-2.0

package wake_test

import (
	"testing"

	"github.com/podwall/podwall/internal/wake"
)

func TestManyWakeUpsAreOne(t *testing.T) {
	s := wake.New()
	s.Set()
	s.Set()
	<-s
	select {
	case <-s:
		t.Error("a second wake-up is there")
	default:
	}
	var none wake.Signal
	none.Set() // does not wait
}
