// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gatenri

import (
	"testing"

	"github.com/podwall/podwall/internal/testkit/entry"
)

func TestMain(m *testing.M) { entry.Main(m) }
