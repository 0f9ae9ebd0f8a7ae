// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podwall/podwall/internal/cluster"
)

const (
	// askPod is the pause between two looks at the pod.
	askPod = 500 * time.Millisecond
	// sayAgain is after how long the same state is said again.
	sayAgain = 10 * time.Second
)

// podClient is what a probe needs of the API.
type podClient interface {
	// pod reads a pod.
	pod(ctx context.Context, key cluster.Key) (*corev1.Pod, error)
	// addContainer adds an ephemeral container to a pod, unless another one has its name now.
	addContainer(ctx context.Context, key cluster.Key, uid types.UID, c *corev1.EphemeralContainer) error
}

// prober runs one container in a pod and waits for its end.
type prober struct {
	client podClient
	say    func(string)
	// patience is how long the container may take to start and to end, pause that between two looks.
	patience, pause time.Duration
}

// run adds the container and returns its termination message. It says what it does, and what stays.
func (p *prober) run(ctx context.Context, pod *corev1.Pod, c *corev1.EphemeralContainer) (string, error) {
	key := keyOf(pod)
	p.say(fmt.Sprintf("adding the ephemeral container %s to pod %s, with the image %s: it stays in the pod's spec "+
		"until the pod ends", c.Name, key, c.Image))
	if err := p.client.addContainer(ctx, key, pod.UID, c); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("interrupted while the container %s was added to pod %s: look whether it is in "+
				"its spec: %w",
				c.Name, key, ctx.Err())
		}
		return "", notAdded(key, err)
	}
	ended, err := p.await(ctx, pod, c.Name)
	if err != nil {
		return "", fmt.Errorf("container %s of pod %s: %w", c.Name, key, err)
	}
	return ended.Message, nil
}

// notAdded explains why the API server refuses the container.
func notAdded(key cluster.Key, err error) error {
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ephemeralcontainers\" in API group"):
		return fmt.Errorf("no right to patch pods/ephemeralcontainers in %s: ask for the right (docs/kubectl.md has "+
			"the role), or leave --probe out: %w", key.Namespace, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("admission refuses the probe container in pod %s: it asks for no right at all, so what is "+
			"refused is the image, or the pod as it is (PodSecurity checks its other containers again): name another "+
			"image with --probe-image, or another pod as the source: %w", key, err)
	case apierrors.IsConflict(err), apierrors.IsInvalid(err) && strings.Contains(err.Error(), "metadata.uid"):
		return fmt.Errorf("pod %s was replaced by another of this name meanwhile: ask again: %w", key, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("pod %s is gone, or the API server has no ephemeral containers (they need Kubernetes "+
			"1.25): %w", key, err)
	}
	return fmt.Errorf("adding a container to pod %s: %w", key, err)
}

// await returns how the container ended.
func (p *prober) await(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ContainerStateTerminated, error) {
	begun := time.Now()
	bounded, end := context.WithTimeout(ctx, p.patience)
	defer end()
	state, last, said := "", "", time.Time{}
	for {
		now, err := p.client.pod(bounded, keyOf(pod))
		seen := ""
		switch {
		case err == nil:
			var ended *corev1.ContainerStateTerminated
			if seen, ended, err = stateOf(now, pod.UID, name); ended != nil || err != nil {
				return ended, err
			}
			last = seen
		case apierrors.IsNotFound(err):
			return nil, errPodGone
		case apierrors.IsForbidden(err):
			return nil, err
		default: // the server may be busy
			seen = err.Error()
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("interrupted; it sends its packets if it starts, and stays in the pod's spec: "+
				"%w", ctx.Err())
		case bounded.Err() != nil:
			return nil, fmt.Errorf("it has not ended within %s (%s): see kubectl describe pod -n %s %s, or wait "+
				"longer with --probe-timeout", p.patience, cmp.Or(last, seen), pod.Namespace, pod.Name)
		case seen != state || time.Since(said) >= sayAgain:
			p.say(fmt.Sprintf("%s after %d s: %s", name, int(time.Since(begun).Seconds()), seen))
			state, said = seen, time.Now()
		}
		sleep(bounded, p.pause)
	}
}

// errPodGone means that the pod went while its container was waited for.
var errPodGone = errors.New("the pod was deleted meanwhile: name another pod as the source")

// neverStarts are the reasons for which a container waits until somebody does something.
func neverStarts() []string {
	return []string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
		"RegistryUnavailable", "SignatureValidationFailed", "CreateContainerConfigError"}
}

// nameAnother is the cure where a pod can have no probe.
const nameAnother = "name another pod as the source"

// ends says that a pod ends or has ended, as the end of a sentence about it; it is empty for others.
func ends(p *corev1.Pod) string {
	switch {
	case p.DeletionTimestamp != nil:
		return "is terminating, and starts no container any more"
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return fmt.Sprintf("has ended (%s)", p.Status.Phase)
	}
	return ""
}

// stateOf says in which state a container of a pod is, and how it ended if it has. It is an error if it
// will not end.
func stateOf(pod *corev1.Pod, uid types.UID, name string) (string, *corev1.ContainerStateTerminated, error) {
	i := slices.IndexFunc(pod.Status.EphemeralContainerStatuses,
		func(s corev1.ContainerStatus) bool { return s.Name == name })
	var state corev1.ContainerState
	if i >= 0 {
		state = pod.Status.EphemeralContainerStatuses[i].State
	}
	switch {
	case pod.UID != uid:
		return "", nil, errPodGone
	case state.Terminated != nil:
		return "", state.Terminated, nil
	case ends(pod) != "":
		return "", nil, fmt.Errorf("the pod %s; %s", ends(pod), nameAnother)
	case state.Running != nil:
		return "it runs", nil, nil
	case state.Waiting == nil || state.Waiting.Reason == "":
		return "waiting for the kubelet of node " + pod.Spec.NodeName, nil, nil
	case slices.Contains(neverStarts(), state.Waiting.Reason):
		return "", nil, fmt.Errorf("it does not start: %s: %s; name an image that the node has or can pull with "+
			"--probe-image. The container stays in the pod's spec, and sends its packets if its image comes",
			state.Waiting.Reason, shortened(state.Waiting.Message))
	}
	return state.Waiting.Reason, nil, nil
}

// shortened is the begin of a text of the kubelet.
func shortened(text string) string {
	const longest = 300
	if len(text) > longest {
		return strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

func keyOf(p *corev1.Pod) cluster.Key { return cluster.Key{Namespace: p.Namespace, Name: p.Name} }
