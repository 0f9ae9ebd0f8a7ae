// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzParse checks that no text makes the reader panic, that an error always
// has a place inside the file, and that every policy isolates.
func FuzzParse(f *testing.F) {
	f.Add([]byte(pod + "---" + policy))
	f.Add([]byte("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n" +
		"spec: {a: 1, ingress: [{form: [], from: [{x: 1}, {y: 1}], ports: [{z: 1}]}], egress: [{to: [{ipBlock: {cidr: x}}]}]}\n"))
	f.Add([]byte(`{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List", "items": [null, {}]}]}`))
	f.Add([]byte("a: &a [*a]\n--- x\n...\n- b:\n - c\n"))
	f.Add([]byte("{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": []} {}\u0085--- !!map\r{a: b}\n...\n%YAML 1.1\n--- \uFEFF#\n  a: 1\n b: 2\n"))
	f.Add(utf16Text(pod, binary.LittleEndian))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse("f", data)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Message == "" {
				t.Fatalf("got error %#v", err)
			}
			return
		}
		for _, p := range r.Policies {
			if !p.Subject.Valid() || !p.IsolatesIngress && !p.IsolatesEgress {
				t.Errorf("policy %s isolates nothing", p.Key)
			}
		}
	})
}
