// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleTime is how long the directory must be quiet before we look: programs
// write their files in several steps. It also bounds how often two programs can
// overwrite each other.
const settleTime = 200 * time.Millisecond

// longestSettle is how long we wait for quiet: a program that writes all the time
// must not keep us from looking.
const longestSettle = 10 * settleTime

// checkPeriod is how often we look without a notification: a link may lead to a file
// elsewhere, and the directory may have been replaced.
const checkPeriod = time.Minute

// retryPeriod is how often we look after an error: its cause may be elsewhere, as a
// plugin that is missing, and pods start without the gate meanwhile.
const retryPeriod = time.Second

// Watch installs, and installs again whenever the pod network's own program
// wrote its configuration again, until ctx ends. A directory without
// configuration is waited for; one that cannot be watched is an error.
func (i Installer) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", i.ConfDir, err)
	}
	defer w.Close()
	if err := os.MkdirAll(i.ConfDir, 0o755); err != nil {
		return explained(i.path(recordName), fmt.Errorf("making %s: %w", i.ConfDir, err))
	}
	if err := w.Add(i.ConfDir); err != nil {
		return fmt.Errorf("watching %s: %w", i.ConfDir, err)
	}
	due, said := time.NewTimer(0), ""
	defer due.Stop()
	var since time.Time // of the first change that was not read
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			i.say("watching %s: %v", i.ConfDir, err)
			due.Reset(settleTime)
		case <-w.Events:
			var wait time.Duration
			wait, since = settle(since, time.Now())
			due.Reset(wait)
		case <-due.C:
			since = time.Time{}
			var wait time.Duration
			wait, said = i.installAgain(w, said)
			due.Reset(wait)
		}
	}
}

// settle returns how long to wait for quiet after a change, and since when a change waits.
func settle(since, now time.Time) (wait time.Duration, first time.Time) {
	if since.IsZero() {
		since = now
	}
	return min(settleTime, max(0, since.Add(longestSettle).Sub(now))), since
}

// installAgain returns when to look again, and what stood in the way; the same is said
// once.
func (i Installer) installAgain(w *fsnotify.Watcher, said string) (wait time.Duration, text string) {
	wait = checkPeriod
	var complaints []string
	err := w.Add(i.ConfDir) // no change, unless the directory is another one
	if err == nil {
		complaints, err = i.install()
	}
	if err != nil {
		complaints, wait = append(complaints, err.Error()), retryPeriod
	}
	text = strings.Join(complaints, "\n")
	if text != "" && text != said {
		i.say("%s", text)
	}
	return wait, text
}
