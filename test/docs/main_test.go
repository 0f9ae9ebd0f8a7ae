// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Try(removing{m}) }

// removing are tests after which the programs go that they built.
type removing struct{ *testing.M }

func (m removing) Run() int {
	status := m.M.Run()
	if err := removePrograms(); err != nil {
		println(err.Error())
		return max(status, 1)
	}
	return status
}
