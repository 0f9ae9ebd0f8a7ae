// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// steady is how long a file that was shortened in place must stay unchanged until its content is
// used: its writer may not have finished.
const steady = time.Second

// known is the state of one file.
type known struct {
	sum    [sha256.Size]byte
	good   *file        // the content in force; nil if there was none
	size   int          // of the text of good
	info   fs.FileInfo  // of the file that was read last; it may differ from that of good
	broken *SyntaxError // why the present content is not in force
	held   time.Time    // since when the present content waits; zero if it does not
}

// next evaluates the present text of a file. Text that cannot be understood, and text without any
// object, leave the last content in force: a truncated file looks like one whose author removed the
// objects, and using it would open pods. The same holds for a while if a file was shortened in
// place.
func (k *known) next(r rawFile, now time.Time) *known {
	sum := sha256.Sum256(r.data)
	if k != nil && k.sum == sum && r.err == nil && k.broken == nil {
		same := *k
		same.info = r.info // it may have been replaced by an equal file
		return &same
	}
	parsed, bad := r.parse()
	if bad == nil && parsed.empty {
		bad = emptyFile(r.name)
	}
	if bad != nil {
		return k.keep(sum, r.info, bad)
	}
	if !k.becameLess(r, parsed) {
		return &known{sum: sum, good: parsed, size: len(r.data), info: r.info}
	}
	since := now
	if k.sum == sum && !k.held.IsZero() {
		since = k.held
	}
	if now.Sub(since) >= steady {
		return &known{sum: sum, good: parsed, size: len(r.data), info: r.info}
	}
	held := k.keep(sum, r.info, &SyntaxError{File: r.name, Line: 1,
		Message: "the file became shorter, or lost objects, in place",
		Cure:    "write a new file and rename it over the old one; if this file is complete, wait"})
	held.held = since
	return held
}

// keep returns the state of a file whose present text is not used.
func (k *known) keep(sum [sha256.Size]byte, info fs.FileInfo, why *SyntaxError) *known {
	now := &known{sum: sum, info: info, broken: why}
	if k != nil {
		now.good, now.size = k.good, k.size
	}
	return now
}

// becameLess reports whether the file is the one that was read last, but its text is shorter than
// the content in force, or objects are missing.
func (k *known) becameLess(r rawFile, parsed *file) bool {
	if k == nil || k.good == nil || !os.SameFile(k.info, r.info) {
		return false
	}
	if len(r.data) < k.size {
		return true
	}
	there := parsed.keys()
	for key := range k.good.keys() {
		if !there[key] {
			return true
		}
	}
	return false
}

// keys lists every object that is used.
func (f *file) keys() map[string]bool {
	keys := map[string]bool{}
	addKeys(keys, "Namespace", f.namespaces)
	addKeys(keys, "Pod", f.pods)
	addKeys(keys, "NetworkPolicy", f.policies)
	addKeys(keys, "Service", f.services)
	addKeys(keys, "EndpointSlice", f.slices)
	addKeys(keys, "Node", f.nodes)
	return keys
}

func addKeys[T any](keys map[string]bool, kind string, list []placed[T]) {
	for _, p := range list {
		keys[kind+" "+p.key.String()] = true
	}
}

func emptyFile(name string) *SyntaxError {
	return &SyntaxError{File: name, Line: 1, Message: "the file holds no object",
		Cure: "write its objects; if it shall hold none, remove it, or write an empty List: " +
			`{"apiVersion": "v1", "kind": "List", "items": []}`}
}

// finding says what is in force instead of the present text.
func (k *known) finding() cluster.Diagnostic {
	consequence := "nothing of the file is used"
	switch {
	case !k.held.IsZero():
		consequence = "its previous content stays in force until it stays the same for " + steady.String()
	case k.good != nil:
		consequence = "the file's previous content stays in force"
	}
	return k.broken.diagnostic(consequence)
}
