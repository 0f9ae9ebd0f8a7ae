// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/proxy/program"
)

// What one Service may cost a node. Its fronts are its ports times its addresses, and each front has a
// slot for each endpoint: a few objects of the API could ask for more than any node has.
const (
	// MaxFronts is how many fronts of a Service are served.
	MaxFronts = 4096
	// MaxServiceSlots is how many slots the fronts of a Service have, all together: enough for four fronts
	// of the largest size.
	MaxServiceSlots = 4 * program.MaxSlots
	// maxFindings is how many findings about the addresses of a Service are told, and as many about fronts
	// that older Services have. A Service may have a thousand of each, and each pass reads all.
	maxFindings = 10
)

// few returns the first findings of a Service. total is how many there are, of which found may have the first
// ones only.
func few(found []cluster.Diagnostic, total int) []cluster.Diagnostic {
	if total <= maxFindings {
		return found
	}
	last := found[maxFindings-1]
	last.Message += fmt.Sprintf(" (and %d more findings about this Service)", total-maxFindings)
	return append(found[:maxFindings-1:maxFindings-1], last)
}

// put adds a claim as long as there is room.
func (b *claimBuilder) put(c claim) {
	if len(b.list) < MaxFronts {
		b.list = append(b.list, c)
		return
	}
	if b.full {
		return
	}
	b.full = true
	b.say(cluster.Error, c.field(), fmt.Sprintf("the Service has more than %d ports, counted at each of its "+
		"addresses: from %s on it is not served", MaxFronts, c), "use several Services, or fewer ports or addresses")
}

// tooLarge is the diagnostic of a Service whose last fronts are not served.
func tooLarge(s *cluster.Service, c claim) cluster.Diagnostic {
	return cluster.Diagnostic{Severity: cluster.Error, Kind: kindService, Object: s.Key, Field: c.field(),
		Message: fmt.Sprintf("the Service has more than %d endpoints, counted for each of its ports at each of its "+
			"addresses: from %s on it is not served", MaxServiceSlots, c),
		Cure: "use several Services, or fewer ports or addresses"}
}
