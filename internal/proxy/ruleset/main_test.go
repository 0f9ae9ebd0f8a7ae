// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Try(m) }
