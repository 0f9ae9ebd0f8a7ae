// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/source/kube"
	"github.com/podwall/podwall/internal/uninstall"
)

// cleanAgain is how often a cleanup that stays looks for what came back.
const cleanAgain = 5 * time.Second

// Cleanup removes everything that is podwall's from the kernel, and the socket of
// the gate. If it is told to stay it does so again until ctx ends: a pod that starts
// with the gate still in its configuration brings closed rules back.
func Cleanup(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	for {
		err := cleanupOnce(ctx, cfg, log)
		if !cfg.CleanupWait || ctx.Err() != nil {
			return err
		}
		if err != nil {
			return err // the kubelet starts the container again, and shows why
		}
		for gone := true; gone; {
			pause(ctx, cleanAgain)
			if ctx.Err() != nil {
				return nil
			}
			if gone, err = datapath.Gone(); err != nil {
				return err
			}
		}
		log.Warn("rules of podwall are back, removing them; a start gate is still installed: podwall-gate uninstall")
	}
}

func cleanupOnce(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	lock := newAgentLock("", nil, log)
	if err := lock.take(ctx); err != nil {
		return fmt.Errorf("%w; stop it first (delete the DaemonSet, not only the pod)", err)
	}
	defer lock.release()
	if lock.failure != nil {
		return lock.failure // an agent may run
	}
	kernel, err := datapath.Open(onceOptions(cfg, log), log)
	if err != nil {
		return err
	}
	err = errors.Join(kernel.Cleanup(), removeServices(log), kernel.Close(), removeSocket(cfg.GateSocket))
	if err != nil {
		return err
	}
	log.Info("nothing of podwall's is in the kernel of this node; policies are not enforced here, and Services " +
		"not served by it")
	return nil
}

// onceOptions are those of a command that does one thing.
func onceOptions(cfg config.Config, log *slog.Logger) datapath.Options {
	options := datapathOptions(cfg)
	if p := checkSysctls(&options); p != nil {
		p.Log(log)
	}
	return options
}

// removeSocket removes the gate's socket that a killed agent left, and its directory
// if that is ours and empty.
func removeSocket(socket string) error {
	info, err := os.Lstat(socket)
	if err == nil && info.Mode().Type() == fs.ModeSocket {
		err = os.Remove(socket)
	}
	if dir := filepath.Dir(socket); filepath.Base(dir) == "podwall" {
		_ = os.Remove(dir) // it may be a mount, or hold files of others
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("removing the gate's socket: %w", err)
}

// OpenNode opens this node in an emergency.
func OpenNode(ctx context.Context, cfg config.Config, log *slog.Logger, out io.Writer) error {
	why := time.Now().UTC().Format(time.RFC3339) + " " + cfg.OpenNode
	if err := datapath.OpenNode(ctx, why, onceOptions(cfg, log), log); err != nil {
		return err
	}
	fmt.Fprintln(out, "this node is open: no policy is enforced on it until podwall-agent --close-node, or until "+
		"it is rebooted")
	return nil
}

// CloseNode takes OpenNode back.
func CloseNode(ctx context.Context, out io.Writer) error {
	err := datapath.CloseNode(ctx)
	if errors.Is(err, datapath.ErrNoAgent) {
		return fmt.Errorf("%w: %w; start the agent, then close the node", ErrRefused, err)
	}
	if err == nil {
		fmt.Fprintln(out, "this node is closed again: its agent enforces the policies")
	}
	return err
}

// namespaceFile names the namespace of a pod with a service account's token.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Uninstall does a step of uninstalling that concerns all nodes.
func Uninstall(ctx context.Context, cfg config.Config, out io.Writer) error {
	namespace := "podwall-system"
	if data, err := os.ReadFile(namespaceFile); err == nil { // else it runs by hand
		namespace = strings.TrimSpace(string(data))
	}
	rest, err := kube.LoadConfig(cfg.Kubeconfig, cfg.Master)
	if err != nil {
		return err
	}
	c, err := uninstall.New(rest, namespace, out)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.UninstallTimeout)
	defer cancel()
	if cfg.Uninstall == config.StepStopAgents {
		return c.StopAgents(ctx)
	}
	return c.AwaitNodes(ctx)
}
