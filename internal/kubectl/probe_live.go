// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/connect"
)

// liveProbe are the flags of a probe in a pod of a cluster.
type liveProbe struct {
	allowed  bool
	image    string
	patience time.Duration
	client   podClient // set in tests
	pause    time.Duration
}

func (l *liveProbe) bind(cmd *cobra.Command) {
	l.pause = askPod
	f := cmd.Flags()
	f.BoolVar(&l.allowed, "ephemeral", false, "let --probe add an ephemeral container to the source pod, which "+
		"stays in the pod's spec until the pod ends")
	f.StringVar(&l.image, "probe-image", "", "`IMAGE` of that container, with podwall-agent of this release; by "+
		"default that of the agent on the pod's node")
	f.DurationVar(&l.patience, "probe-timeout", time.Minute, "`TIME` that the container may take to start and to end")
}

// check refuses flags that do not go together, before anything is read.
func (e *explainCommand) check(args []string) error {
	dst := ""
	if len(args) > 1 {
		dst, _, _ = splitPort(args[1]) // what is wrong with it is said later
	}
	switch {
	case !e.probe && (e.live.allowed || e.live.image != ""):
		return errors.New("--ephemeral and --probe-image are for --probe")
	case !e.probe:
		return nil
	case len(args) == 1:
		return errors.New("--probe needs a source and a destination")
	case e.source.files() && (e.live.allowed || e.live.image != ""):
		return errors.New("--ephemeral and --probe-image are for a cluster: with -f, podwall-lab sends on this machine")
	case e.source.files():
		return nil
	case !e.live.allowed:
		return errors.New("--probe on a cluster changes the source pod: it adds an ephemeral container that sends " +
			"the packets, and that stays in the pod's spec until the pod ends. If you want that, add --ephemeral. " +
			"To send in network namespaces of this machine instead: " +
			"kubectl get ns,nodes,pods,netpol,svc -A -o yaml | kubectl podwall explain -f - SRC DST:PORT --probe")
	case dst == outside:
		return errors.New("--probe on a cluster sends to real addresses: name one instead of outside")
	case e.live.patience <= 0:
		return fmt.Errorf("--probe-timeout %s: want a time above 0", e.live.patience)
	}
	return nil
}

// sendLive has a container in the source pod send a packet on the path of each answer.
func (e *explainCommand) sendLive(ctx context.Context, sc *scene, answers []answer) (*probe, error) {
	source, list, err := sc.sendings(answers)
	if err != nil {
		return nil, err
	}
	if e.live.client == nil {
		if e.live.client, err = e.source.podClient(); err != nil {
			return nil, err
		}
	}
	pod, err := e.live.client.pod(ctx, source.Key)
	if err != nil {
		return nil, notRead(source.Key, err)
	}
	if err := canHost(pod, source); err != nil {
		return nil, fmt.Errorf("pod %s %w", source.Key, err)
	}
	image := e.live.image
	if image == "" {
		image = sc.images[pod.Spec.NodeName]
	}
	if image == "" {
		return nil, fmt.Errorf("no agent is known on node %s, where pod %s is, so that no image is: name one that has "+
			"podwall-agent with --probe-image, or podwall's namespace with --agents-namespace",
			pod.Spec.NodeName, source.Key)
	}
	c := probeContainer(image, list)
	run := prober{client: e.live.client, say: e.source.say, patience: e.live.patience, pause: e.live.pause}
	message, err := run.run(ctx, pod, c)
	if err != nil {
		return nil, err
	}
	r, err := connect.ReadReport(message, len(list))
	if err != nil {
		return nil, fmt.Errorf("container %s of pod %s says %q: %w; it may be cut where a pod has had many "+
			"containers, and an image without podwall-agent of this release has none: name another pod, or an "+
			"image with --probe-image", c.Name, source.Key, shortened(message), err)
	}
	p := compare(list, r)
	p.Pod, p.Container = source.Key.String(), c.Name
	return p, nil
}

// notRead explains why the source pod could not be read.
func notRead(key cluster.Key, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("no right to get pods in %s, which --probe needs: %w", key.Namespace, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("pod %s is gone: name another pod as the source: %w", key, err)
	}
	return fmt.Errorf("reading pod %s: %w", key, err)
}

// canHost says why a pod can have no probe, as the end of a sentence about it; explained is what the
// explanation is about.
func canHost(p *corev1.Pod, explained *cluster.Pod) error {
	switch {
	case explained.UID != "" && string(p.UID) != explained.UID:
		return errors.New("was replaced by another of this name meanwhile: ask again")
	case p.Spec.HostNetwork:
		return errors.New("is on the network of its node: policies do not hold for it; " + nameAnother)
	case ends(p) != "":
		return errors.New(ends(p) + "; " + nameAnother)
	case p.Spec.NodeName == "" || len(p.Status.PodIPs) == 0:
		return errors.New("has no address yet; wait with kubectl wait --for=condition=Ready")
	case p.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return errors.New("is a static pod of its node, to which the API adds no container; " + nameAnother)
	case p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows:
		return errors.New("runs Windows, and the probe is a program for Linux; " + nameAnother)
	}
	return nil
}

// probeUser is the user of the probe: any other than root would do, since images name none.
const probeUser = 65532

// probeContainer is a container that sends packets and ends. It has no right that the level "restricted"
// of PodSecurity would refuse, no token, no volume and no resources of its own.
func probeContainer(image string, list []sending) *corev1.EphemeralContainer {
	var targets []connect.Target
	for _, s := range list {
		targets = append(targets, s.target)
	}
	yes, no, user := true, false, int64(probeUser)
	return &corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "podwall-probe-" + utilrand.String(5), Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{agentProgram, "--connect=" + connect.FormatTargets(targets)},
		// What a program says that is not ours, or not of this release, is shown too.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext: &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
			Privileged: &no, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
	}}
}

// imagesOf returns the images of the agents in a namespace, by node.
func imagesOf(pods []corev1.Pod, namespace string) map[string]string {
	images := map[string]string{}
	for i := range pods {
		p := &pods[i]
		if p.Namespace != namespace || len(agentsAmong(pods[i:i+1])) == 0 {
			continue
		}
		c := slices.IndexFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == agentContainer })
		images[p.Spec.NodeName] = p.Spec.Containers[c].Image
	}
	return images
}

// clusterPods reads and changes pods by an API server.
type clusterPods struct{ client *rest.RESTClient }

func (s *source) podClient() (podClient, error) {
	config, err := s.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; %s", err, s.cure())
	}
	return podsOf(config)
}

func podsOf(config *rest.Config) (podClient, error) {
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &corev1.SchemeGroupVersion, "/api"
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("setting up the client: %w", err)
	}
	return clusterPods{client}, nil
}

func (c clusterPods) pod(ctx context.Context, key cluster.Key) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	return p, c.client.Get().Namespace(key.Namespace).Resource("pods").Name(key.Name).Do(ctx).Into(p)
}

func (c clusterPods) addContainer(ctx context.Context, key cluster.Key, uid types.UID,
	container *corev1.EphemeralContainer) error {
	type object map[string]any
	patch, err := json.Marshal(object{"metadata": object{"uid": uid},
		"spec": object{"ephemeralContainers": []*corev1.EphemeralContainer{container}}})
	if err != nil {
		return fmt.Errorf("writing the container: %w", err)
	}
	return c.client.Patch(types.StrategicMergePatchType).Namespace(key.Namespace).Resource("pods").Name(key.Name).
		SubResource("ephemeralcontainers").Body(patch).Do(ctx).Error()
}
