// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"cmp"
	"strings"
)

// The parts of the API's objects that are read.

type daemonSet struct {
	Metadata struct {
		Generation  int64             `json:"generation"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Status struct {
		Desired            int   `json:"desiredNumberScheduled"`
		Ready              int   `json:"numberReady"`
		ObservedGeneration int64 `json:"observedGeneration"`
	} `json:"status"`
}

// objects is a list of pods or of nodes.
type objects struct {
	Items []pod `json:"items"`
}

// pod is a pod or a node: the conditions of both are read.
type pod struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Conditions []condition `json:"conditions"`
		Init       []container `json:"initContainerStatuses"`
		Main       []container `json:"containerStatuses"`
	} `json:"status"`
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Message string `json:"message"`
}

type container struct {
	Name  string `json:"name"`
	State struct {
		Waiting    *reason `json:"waiting"`
		Terminated *reason `json:"terminated"`
	} `json:"state"`
	Last struct {
		Terminated *reason `json:"terminated"`
	} `json:"lastState"`
}

type reason struct {
	Reason   string `json:"reason"`
	Message  string `json:"message"`
	ExitCode int    `json:"exitCode"`
}

func (p pod) condition(kind string) condition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return condition{}
}

func (p pod) ready() bool { return p.condition("Ready").Status == "True" }

func (p pod) unplaced() string {
	return cmp.Or(p.condition("PodScheduled").Message, "it waits for the scheduler")
}

// why says what a pod of the cleaner is waiting for: the first container that failed or cannot
// start, with its log.
func (p pod) why() string {
	for _, c := range append(p.Status.Init, p.Status.Main...) {
		wait, last := c.State.Waiting, c.Last.Terminated
		if c.State.Terminated != nil && c.State.Terminated.ExitCode != 0 {
			last = c.State.Terminated
		}
		switch {
		case last != nil && last.ExitCode != 0:
			return "container " + c.Name + " fails: kubectl logs " + p.Metadata.Name + " -c " + c.Name +
				" --previous says why"
		case wait != nil && wait.Reason != "PodInitializing" && wait.Reason != "ContainerCreating":
			return "container " + c.Name + " does not start: " + strings.TrimSpace(wait.Reason+" "+wait.Message)
		}
	}
	return "it is being cleaned"
}
