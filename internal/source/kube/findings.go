// SPDX-License-Identifier: Apache-2.0

package kube

import "github.com/podwall/podwall/internal/cluster"

// origin is whose diagnostics they are.
type origin struct {
	Kind string
	Key  cluster.Key
}

// findings has the store told what is wrong with the objects of one kind.
type findings struct {
	kind     string
	reported map[cluster.Key]bool // those that have diagnostics in the store
	put      func(*cluster.Tx, any, []cluster.Diagnostic)
}

func newFindings(kind string, put func(*cluster.Tx, any, []cluster.Diagnostic)) findings {
	return findings{kind, map[cluster.Key]bool{}, put}
}

// tell replaces the diagnostics about an object; none for one that is gone.
func (f *findings) tell(tx *cluster.Tx, k cluster.Key, found []cluster.Diagnostic) {
	if len(found) == 0 && !f.reported[k] {
		return
	}
	f.put(tx, origin{f.kind, k}, found)
	delete(f.reported, k)
	if len(found) > 0 {
		f.reported[k] = true
	}
}

// forget removes the diagnostics about all objects that are not here any more.
func (f *findings) forget(tx *cluster.Tx, here map[cluster.Key]bool) {
	for k := range f.reported {
		if !here[k] {
			f.tell(tx, k, nil)
		}
	}
}
