// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A runtime looks at the directory at every moment: there is always exactly one
// network that it can use, with or without our plugin, and nothing half written.
func TestARuntimeAlwaysFindsAValidConfiguration(t *testing.T) {
	for _, file := range []string{"bridge.conflist", "ptp.conf"} {
		t.Run(file, func(t *testing.T) {
			y := newYard(t, file)
			stop, looked := make(chan struct{}), make(chan int)
			go func() {
				n := 0
				defer func() { looked <- n }()
				for {
					select {
					case <-stop:
						return
					default:
						if got := usedIn(t, y.ConfDir); len(got) == 0 {
							return
						}
						n++
					}
				}
			}()
			for range 20 {
				y.check(y.Install())
				y.check(y.Uninstall())
			}
			close(stop)
			if n := <-looked; n < 20 {
				t.Errorf("it looked %d times only", n)
			}
		})
	}
}

func TestWatchInstallsWhenTheNetworkComesAndWhenItIsWrittenAgain(t *testing.T) {
	y := newYard(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- y.Watch(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, file := range []string{"flannel.conflist", "flannel.conflist", "bridge.conflist"} { // the last comes first by name
		data, err := os.ReadFile("testdata/" + file)
		y.check(err)
		_, err = y.write(y.path("10-"+file), data, 0o644)
		y.check(err)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			got := y.used()
			if slices.Contains(got, Name) && slices.Contains(got, strings.TrimSuffix(file, ".conflist")) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after %s was written the plugins are %v", file, got)
			}
		}
	}
}

// Who writes in the directory all the time does not keep the gate out of it.
func TestWatchDoesNotWaitForQuietForEver(t *testing.T) {
	var since time.Time
	begin := time.Now()
	for n := range 1000 {
		now := begin.Add(time.Duration(n) * settleTime / 2)
		var wait time.Duration
		if wait, since = settle(since, now); wait == 0 {
			return
		}
	}
	t.Error("it waits for ever")
}

// kube-router removes its own files when it starts and has another one, in several steps.
func TestWatchFollowsKubeRouterFromOneFileToTheOther(t *testing.T) {
	y := newYard(t, "kuberouter.conf")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- y.Watch(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(file string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			used, types, _ := containerdTakes(y.ConfDir)
			if used == file && slices.Contains(types, Name) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("containerd takes %s with %v, want %s with the gate", used, types, file)
			}
		}
	}
	await(besideName("10-kuberouter.conf"))
	y.check(os.Remove(y.path("10-kuberouter.conf")))
	y.copyAs("10-kuberouter.conflist", "kuberouter.conflist")
	await("10-kuberouter.conflist")
}

// What an error is about may be where no change is seen.
func TestWatchTriesAgainSoonAfterAnError(t *testing.T) {
	y := newYard(t, "kuberouter.conf")
	y.check(os.Remove(filepath.Join(y.BinDir, "bridge")))
	w, err := fsnotify.NewWatcher()
	y.check(err)
	defer w.Close()
	wait, said := y.installAgain(w, "")
	if wait != retryPeriod || !strings.Contains(said, "bridge") {
		t.Errorf("without the plugin it says %q and looks again after %v", said, wait)
	}
	y.plugin("bridge", "0.3.1")
	if wait, said := y.installAgain(w, said); wait != checkPeriod || said != "" {
		t.Errorf("with the plugin it says %q and looks again after %v", said, wait)
	}
}
