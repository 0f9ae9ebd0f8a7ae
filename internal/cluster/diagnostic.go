// SPDX-License-Identifier: Apache-2.0

package cluster

import "fmt"

// Severity orders diagnostics.
type Severity uint8

// The severities. Warning: everything is enforced as written, but may not be as intended. Error: a
// part was not understood and matches nothing.
const (
	Warning Severity = iota + 1
	Error
)

// String returns "warning" or "error".
func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// MarshalText returns the word that String returns.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(text []byte) error {
	for _, known := range []Severity{Warning, Error} {
		if known.String() == string(text) {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("%q is no severity", text)
}

// Diagnostic is a finding about a user's object. It is a value, returned by pure functions and
// reported at the edge. Faults of podwall or of the machine are errors instead.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Kind is the object's kind, or "File" for a file that could not be read.
	Kind   string `json:"kind"`
	Object Key    `json:"object"`
	// Field is the path inside the object, as in spec.ingress[0].ports[1].port;
	// for a file FILE:LINE.
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	// Cure is what the user can do.
	Cure string `json:"cure,omitempty"`
}

// String returns one line for people.
func (d Diagnostic) String() string {
	s := fmt.Sprintf("%s: %s %s", d.Severity, d.Kind, d.Object)
	if d.Field != "" {
		s += ": " + d.Field
	}
	s += ": " + d.Message
	if d.Cure != "" {
		s += "; " + d.Cure
	}
	return s
}
