// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Main(m) }
