// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podwall/podwall/internal/cluster"
)

// scriptedPod is a pod whose container goes through states, one at each look; the last one stays.
type scriptedPod struct {
	looks []func(*corev1.Pod) error
	added *corev1.EphemeralContainer
	err   error // of adding
}

func sourcePod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "client", UID: "u"},
		Spec: corev1.PodSpec{NodeName: "node1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning,
			PodIPs: []corev1.PodIP{{IP: "10.244.1.11"}}}}
}

func (s *scriptedPod) pod(_ context.Context, _ cluster.Key) (*corev1.Pod, error) {
	p := sourcePod()
	look := s.looks[0]
	if len(s.looks) > 1 {
		s.looks = s.looks[1:]
	}
	return p, look(p)
}

func (s *scriptedPod) addContainer(_ context.Context, _ cluster.Key, _ types.UID, c *corev1.EphemeralContainer) error {
	s.added = c
	return s.err
}

func waiting(reason, message string) func(*corev1.Pod) error {
	return in(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}})
}

func in(state corev1.ContainerState) func(*corev1.Pod) error {
	return func(p *corev1.Pod) error {
		p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "another"}, {Name: "probe", State: state}}
		return nil
	}
}

func ended(message string) func(*corev1.Pod) error {
	return in(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}})
}

func changed(change func(*corev1.Pod)) func(*corev1.Pod) error {
	return func(p *corev1.Pod) error { change(p); return nil }
}

func nothing(*corev1.Pod) error { return nil }

var podResource = schema.GroupResource{Resource: "pods"}

// The states of the container are said when they change, until it ends, or will not.
func TestTheContainerIsWaitedFor(t *testing.T) {
	now := metav1.Now()
	tests := []struct {
		name  string
		looks []func(*corev1.Pod) error
		said  []string
		want  string // the message, or the error
	}{
		{"it ends", []func(*corev1.Pod) error{nothing, nothing, waiting("ContainerCreating", ""), in(corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{}}), ended("good")},
			[]string{"waiting for the kubelet of node node1", "ContainerCreating", "it runs"}, "good"},
		{"it ended before the pod", []func(*corev1.Pod) error{func(p *corev1.Pod) error {
			p.DeletionTimestamp = &now
			return ended("good")(p)
		}}, nil, "good"},
		{"no such image", []func(*corev1.Pod) error{waiting("ContainerCreating", ""), waiting("ErrImagePull", strings.Repeat("x", 400))},
			[]string{"ContainerCreating"}, "container probe of pod shop/client: it does not start: ErrImagePull: " +
				strings.Repeat("x", 300) + "…; name an image that the node has or can pull with --probe-image."},
		{"root is refused", []func(*corev1.Pod) error{waiting("CreateContainerConfigError", "no")}, nil, "CreateContainerConfigError: no;"},
		{"the server is busy", []func(*corev1.Pod) error{func(*corev1.Pod) error { return errors.New("busy") }, ended("good")},
			[]string{"busy"}, "good"},
		{"no right", []func(*corev1.Pod) error{func(*corev1.Pod) error { return apierrors.NewForbidden(podResource, "client", nil) }}, nil,
			"is forbidden"},
		{"the pod is gone", []func(*corev1.Pod) error{func(*corev1.Pod) error { return apierrors.NewNotFound(podResource, "client") }}, nil,
			"the pod was deleted meanwhile: name another"},
		{"another pod has its name", []func(*corev1.Pod) error{changed(func(p *corev1.Pod) { p.UID = "v" })}, nil, "deleted meanwhile"},
		{"the pod terminates", []func(*corev1.Pod) error{changed(func(p *corev1.Pod) { p.DeletionTimestamp = &now })}, nil,
			"terminating, and starts no container any more; name another"},
		{"the pod ends", []func(*corev1.Pod) error{changed(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })}, nil,
			"the pod has ended (Failed); name another"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var said []string
			p := prober{client: &scriptedPod{looks: tt.looks}, say: func(s string) { said = append(said, s) }, patience: time.Hour,
				pause: time.Nanosecond}
			c := &corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "probe", Image: "i"}}
			got, err := p.run(t.Context(), sourcePod(), c)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if said[0] != "adding the ephemeral container probe to pod shop/client, with the image i: it stays in the pod's spec until "+
				"the pod ends" {
				t.Errorf("it says first %q", said[0])
			}
			for i := range said[1:] {
				_, said[i+1], _ = strings.Cut(said[i+1], " s: ")
			}
			if !slices.Equal(said[1:], tt.said) {
				t.Errorf("it says %q, want %q", said[1:], tt.said)
			}
		})
	}
}

// The wait has an end, and Ctrl-C is one; both say what stays.
func TestTheWaitEnds(t *testing.T) {
	c := &corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "probe", Image: "i"}}
	p := prober{client: &scriptedPod{looks: []func(*corev1.Pod) error{waiting("ContainerCreating", "")}}, say: func(string) {},
		patience: time.Millisecond, pause: time.Hour}
	_, err := p.run(t.Context(), sourcePod(), c)
	if err == nil || !strings.Contains(err.Error(), "not ended within 1ms (ContainerCreating): see kubectl describe pod -n shop client") {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	p.patience, p.say = time.Hour, func(text string) {
		if strings.Contains(text, "ContainerCreating") {
			stop() // while it waits
		}
	}
	_, err = p.run(ctx, sourcePod(), c)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stays in the pod's spec") {
		t.Errorf("interrupted: %v", err)
	}
	p.client = &scriptedPod{err: context.Canceled}
	if _, err = p.run(ctx, sourcePod(), c); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "look whether it is in") {
		t.Errorf("interrupted while it is added: %v", err)
	}
}

func TestWhyAContainerIsNotAdded(t *testing.T) {
	key := cluster.Key{Namespace: "shop", Name: "client"}
	refused := apierrors.NewForbidden(podResource, "client", errors.New("violates x"))
	for want, err := range map[string]error{
		"pod shop/client was replaced by another of this name meanwhile: ask again": apierrors.NewConflict(podResource, "client", nil),
		"is gone, or the API server has no ephemeral containers":                    apierrors.NewNotFound(podResource, "client"),
		"adding a container to pod shop/client: no":                                 errors.New("no"),
		"admission refuses the probe container in pod shop/client":                  refused,
	} {
		if got := notAdded(key, err); !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v, want %q", got, want)
		}
	}
}

func TestWhichPodsCanHaveAProbe(t *testing.T) {
	now := metav1.Now()
	known := &cluster.Pod{UID: "u"}
	if err := canHost(sourcePod(), known); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*corev1.Pod){
		"was replaced by another":               func(p *corev1.Pod) { p.UID = "v" },
		"is on the network of its node":         func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"is terminating, and starts no":         func(p *corev1.Pod) { p.DeletionTimestamp = &now },
		"has ended (Succeeded)":                 func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"has no address yet; wait with kubectl": func(p *corev1.Pod) { p.Status.PodIPs = nil },
		"is a static pod of its node": func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		},
		"runs Windows": func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
	} {
		p := sourcePod()
		change(p)
		if err := canHost(p, known); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What goes wrong with the flags is said before anything is read.
func TestAProbeOnAClusterIsAskedFor(t *testing.T) {
	for line, want := range map[string]string{
		"a b --probe": "--probe on a cluster changes the source pod: it adds an ephemeral container that sends the packets, " +
			"and that stays in the pod's spec until the pod ends. If you want that, add --ephemeral.",
		"a b --ephemeral":                                 "--ephemeral and --probe-image are for --probe",
		"a b --probe-image i":                             "--ephemeral and --probe-image are for --probe",
		"a --probe --ephemeral":                           "--probe needs a source and a destination",
		"a b -f testdata/shop.yaml --probe --ephemeral":   "are for a cluster: with -f, podwall-lab sends on this machine",
		"a outside:80 --probe --ephemeral":                "name one instead of outside",
		"a b --probe --ephemeral --probe-timeout=-1s":     "--probe-timeout -1s: want a time above 0",
		"a b --probe --ephemeral --kubeconfig=/not/there": "--kubeconfig",
	} {
		status, out, said := commandLine(t, append([]string{"explain"}, strings.Fields(line)...)...)
		if said = strings.ReplaceAll(said, "\n  ", " "); status != statusUsage || out != "" || !strings.Contains(said, want) {
			t.Errorf("%s: exit status %d, %q", line, status, said)
		}
	}
}
