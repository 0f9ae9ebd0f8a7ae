// SPDX-License-Identifier: Apache-2.0

package denied

import "time"

// Line is one line of an agent's answer about its records; one field is set. The records that it
// keeps come first, the oldest first, then the summary, then the records that are made from then on, if
// that was asked for.
type Line struct {
	Flow    *Record  `json:"flow,omitempty"`
	Summary *Summary `json:"summary,omitempty"`
}

// Summary is about all records of an agent since it started.
type Summary struct {
	Node string `json:"node"`
	// Recording is false if the agent was told to record nothing, or cannot; Why says the reason.
	Recording bool   `json:"recording"`
	Why       string `json:"why,omitempty"`
	// Since is when it began.
	Since time.Time `json:"since"`
	// Recorded are packets of which there is a record, Suppressed are denied packets of which there
	// is none: above the rate of a pod, or too many at once.
	Recorded   uint64 `json:"recorded"`
	Suppressed uint64 `json:"suppressed"`
	// SuppressedTo is a time after which no packet was suppressed, when Suppressed is above 0: when it was
	// noticed that there were more. It is zero for an agent that does not say.
	SuppressedTo time.Time `json:"suppressedTo,omitzero"`
	// Forgotten are records that gave way to newer ones.
	Forgotten uint64 `json:"forgotten"`
	// ForgottenTo is the latest last packet of a forgotten record: of the time after it, none is forgotten.
	ForgottenTo time.Time `json:"forgottenTo,omitzero"`
	// Missed are records that who follows did not get, because it reads too slowly.
	Missed uint64 `json:"missed,omitempty"`
}
