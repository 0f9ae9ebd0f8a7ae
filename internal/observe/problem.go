// SPDX-License-Identifier: Apache-2.0

package observe

import "log/slog"

// Log says that the node has the problem. The words are the same whatever it is, so that a search of logs
// finds all.
func (p Problem) Log(log *slog.Logger, more ...any) {
	log.Error("node problem", append([]any{"subject", p.Subject, "detail", p.Text, "cure", p.Cure}, more...)...)
}

// LogResolved says that a subject has no problem any more.
func LogResolved(log *slog.Logger, subject string) {
	log.Info("node problem resolved", "subject", subject)
}
