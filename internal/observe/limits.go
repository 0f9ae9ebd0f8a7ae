// SPDX-License-Identifier: Apache-2.0

package observe

import "fmt"

// Limit names something that fills up. The names are the values of the label of
// podwall_limit_used_ratio; docs/limits.md has the figures and where they are from.
type Limit string

// The limits that are watched.
const (
	LimitConnections Limit = "conntrack" // entries of the kernel's connection table
	LimitElements    Limit = "elements"  // of all sets and maps
	LimitPrefixes    Limit = "prefixes"  // of the largest set of them
	LimitRefused     Limit = "refused"   // connections that were cut and must stay so
	LimitRules       Limit = "rules"     // of all chains
)

// limits returns all of them, sorted.
func limits() []string {
	return []string{string(LimitConnections), string(LimitElements), string(LimitPrefixes), string(LimitRefused),
		string(LimitRules)}
}

// Use says how much of a limit is used.
type Use struct {
	Limit Limit
	// Object is what is measured, or what takes the most of it, for people.
	Object string
	// Used is a count, and Max the most that it should be; 0 for no bound, and if it
	// is not known.
	Used, Max int
}

// From the first share on a limit is a problem, and until it falls below the
// second: what goes up and down around the first is said once.
const (
	problemFrom  = 0.80
	problemUntil = 0.75
)

// Ratio is the part that is used: 1 is all, and there may be more. It is 0 without
// a bound.
func (u Use) Ratio() float64 {
	if u.Max <= 0 {
		return 0
	}
	return float64(u.Used) / float64(u.Max)
}

// Subject is the identity of the problem of this limit.
func (u Use) Subject() string { return "limit " + string(u.Limit) }

// Problem returns what the operator should know, if there is something. Before
// says whether it was a problem already. It never blocks: what goes wrong above a
// limit has a problem of its own.
func (u Use) Problem(before bool) (Problem, bool) {
	if r := u.Ratio(); r < problemUntil || r < problemFrom && !before {
		return Problem{}, false
	}
	consequence, cure := u.Limit.advice()
	text := fmt.Sprintf("%s: %d of %d, %d %%", u.Object, u.Used, u.Max, 100*u.Used/u.Max)
	return Problem{Subject: u.Subject(), Text: text + "; " + consequence, Cure: cure}, true
}

// advice says what happens above a limit, and what helps.
func (l Limit) advice() (consequence, cure string) {
	switch l {
	case LimitConnections:
		return "when it is full the kernel drops new connections, before any policy applies",
			"raise net.netfilter.nf_conntrack_max, or look for who opens so many"
	case LimitElements:
		return "more than that were never measured: a start and a repair may take longer than half a minute",
			"select fewer pods by policies, or spread the pods over more nodes"
	case LimitPrefixes:
		return "the kernel lists them slowly: with more than that a start and a repair take longer than 13 seconds",
			"join the address blocks of the policy, or divide them among several rules"
	case LimitRefused:
		return "when it is full the oldest go, and their answering ends may revive what was cut",
			"change fewer policies at once; nothing else is needed, entries go by themselves"
	case LimitRules:
		return "more than that were never measured: changes take seconds, and a long chain costs each new connection",
			"join policies that select the same pods, and their rules"
	}
	return "", ""
}

// Connections is how full the kernel's connection table is.
type Connections struct {
	Entries int `json:"entries"`
	// Limit is nf_conntrack_max; 0 for no bound.
	Limit int `json:"limit"`
}

// SetConnections records the size of the connection table.
func (o *Observer) SetConnections(c Connections) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status.Connections = &c
	o.metrics.entries.Set(float64(c.Entries))
	o.metrics.entriesLimit.Set(float64(c.Limit))
}

// SetUse records how much of a limit is used. Use.Problem says whether that is a
// problem; it is set like all others.
func (o *Observer) SetUse(u Use) { o.metrics.used.WithLabelValues(string(u.Limit)).Set(u.Ratio()) }
