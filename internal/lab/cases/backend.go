// SPDX-License-Identifier: Apache-2.0

package cases

import (
	"context"
	"errors"
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/oracle"
	"github.com/podwall/podwall/internal/netpol/program"
)

// ErrClusterPolicies is the answer of a backend that knows NetworkPolicy only.
var ErrClusterPolicies = errors.New("the step has cluster policies, which this backend does not know")

// OracleBackend asks package oracle.
type OracleBackend struct{}

var _ Backend = OracleBackend{}

// Judge implements Backend.
func (OracleBackend) Judge(ctx context.Context, step *Step) (Observed, error) {
	snap := step.Snapshot()
	return observe(ctx, step, func(p cluster.Protocol, port uint16, src, dst End) bool {
		f := oracle.Flow{Protocol: p, Port: port, Src: src.oracle(), Dst: dst.oracle()}
		return oracle.Judge(snap, f).Allowed
	})
}

func (e End) oracle() oracle.Endpoint {
	if e.Pod == nil {
		return oracle.Outside(e.Addr)
	}
	return oracle.Endpoint{Pod: e.Pod.Key(), Addr: e.Addr}
}

// ProgramBackend asks the interpreter of compiled programs: each node's own
// program, as that node would be asked by the packets it sees.
type ProgramBackend struct {
	compile func(*cluster.Snapshot, string) *program.Program
	eval    func(*program.Program, program.Flow) bool
}

var _ Backend = (*ProgramBackend)(nil)

// NewProgramBackend returns a backend over the functions that compile the
// program of a node and evaluate it.
func NewProgramBackend(
	compile func(snap *cluster.Snapshot, node string) *program.Program,
	eval func(*program.Program, program.Flow) bool,
) *ProgramBackend {
	return &ProgramBackend{compile: compile, eval: eval}
}

// Judge implements Backend. A flow is allowed if the node of its source and the
// node of its destination both let it pass; a host outside has no node.
func (b *ProgramBackend) Judge(ctx context.Context, step *Step) (Observed, error) {
	snap := step.Snapshot()
	programs := map[string]*program.Program{}
	for _, node := range step.Nodes() {
		programs[node] = b.compile(snap, node)
	}
	return observe(ctx, step, func(p cluster.Protocol, port uint16, src, dst End) bool {
		for _, node := range nodesOf(src, dst) {
			if !b.eval(programs[node], flowOn(node, p, port, src, dst)) {
				return false
			}
		}
		return true
	})
}

func nodesOf(ends ...End) []string {
	var nodes []string
	for _, e := range ends {
		if e.Pod != nil {
			nodes = append(nodes, e.Pod.Node)
		}
	}
	return sortedUnique(nodes)
}

// flowOn is the flow as one node sees it. A host-network pod is its node.
func flowOn(node string, p cluster.Protocol, port uint16, src, dst End) program.Flow {
	return program.Flow{
		Protocol: inet.Protocol(p), Src: src.Addr, Dst: dst.Addr, DstPort: port,
		FromNode: src.isNode(node), ToNode: dst.isNode(node), SrcElsewhere: src.elsewhere(node),
		DstElsewhere: dst.elsewhere(node),
	}
}

// elsewhere reports whether the end is a host outside or another node.
func (e End) elsewhere(node string) bool { return e.Pod == nil || e.Pod.HostNetwork && !e.isNode(node) }

func (e End) isNode(node string) bool {
	return e.Pod != nil && e.Pod.HostNetwork && e.Pod.Node == node
}

// observe fills the matrix of every probe. Flows between two hosts outside are
// nobody's business and stay unobserved.
func observe(
	ctx context.Context, step *Step, allowed func(p cluster.Protocol, port uint16, src, dst End) bool,
) (Observed, error) {
	o := Observed{ID: step.ID}
	if len(step.ClusterPolicies) > 0 {
		return o, ErrClusterPolicies
	}
	ends, err := step.Ends()
	if err != nil {
		return o, fmt.Errorf("judging %s: %w", step.ID, err)
	}
	for i := range step.Probes {
		if err := ctx.Err(); err != nil {
			return o, err
		}
		p := &step.Probes[i]
		protocol, _ := cluster.ParseProtocol(p.Protocol)
		o.Probes = append(o.Probes, ObservedProbe{Port: p.Port, Protocol: p.Protocol,
			Observed: matrix(ends, func(src, dst End) bool { return allowed(protocol, p.Port, src, dst) })})
	}
	return o, nil
}

func matrix(ends []End, allowed func(src, dst End) bool) []string {
	rows := make([]string, len(ends))
	for i, src := range ends {
		row := make([]byte, len(ends))
		for j, dst := range ends {
			switch {
			case src.Pod == nil && dst.Pod == nil:
				row[j] = NotObserved
			case allowed(src, dst):
				row[j] = '1'
			default:
				row[j] = '0'
			}
		}
		rows[i] = string(row)
	}
	return rows
}
