// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// eachFront runs a test on a node with each of the gate's fronts.
func eachFront(t *testing.T, test func(t *testing.T, n *node)) {
	for _, f := range []front{byCNI, byNRI} {
		t.Run(string(f), func(t *testing.T) { test(t, newNode(t, f)) })
	}
}

// The API never says an address here: what is open is open by the gate.
func TestTheFirstPacketOfAContainerIsJudged(t *testing.T) {
	eachFront(t, func(t *testing.T, n *node) {
		n.publish(object("web"), object("friend"), object("foe"), onlyFromFriend)
		n.startAgent()
		web := n.run("web")
		n.wantAnnounced("web")
		n.serve(web)
		friend := n.run("friend")
		n.wantAnnounced("web", "friend")
		if a := n.dials(friend, web); a != atFirst {
			t.Errorf("the friend's first packet: %d, want %d", a, atFirst)
		}
		foe, before := n.run("foe"), n.drops()
		if a := n.dials(foe, web); a != never {
			t.Errorf("the foe's first packet: %d, want %d", a, never)
		}
		if n.drops() == before {
			t.Error("the foe's packets are not counted")
		}
		n.stop(foe)
		n.wantAnnounced("web", "friend")
	})
}

// What the tests above see is the gate's doing.
func TestWithoutTheGateTheFirstPacketIsLost(t *testing.T) {
	n := newNode(t, none)
	n.publish(object("web"), object("friend"), onlyFromFriend)
	n.startAgent()
	web := n.run("web")
	n.wantAnnounced()
	n.serve(web)
	if a := n.dials(n.run("friend"), web); a != never {
		t.Errorf("the friend's first packet: %d, want %d: nobody told the agent whose address it is", a, never)
	}
}

func TestAPodStartsClosedWhileNoAgentRuns(t *testing.T) {
	eachFront(t, func(t *testing.T, n *node) {
		n.publish(object("web"), object("friend"))
		agent := n.startAgent()
		web := n.run("web")
		n.serve(web)
		agent.stop(syscall.SIGKILL)
		friend := n.run("friend")
		if friend.took > time.Minute {
			t.Errorf("the start took %s, want the timeout of the gate", friend.took)
		}
		if a := n.dials(friend, web); a != never { // no policy isolates it
			t.Errorf("the friend's first packet: %d, want %d", a, never)
		}
		id := n.container(friend, "pause")
		if n.front == byCNI { // which says a pod once
			n.publish(objectAt("web", web.ip.String()), objectAt("friend", friend.ip.String()))
		}
		n.startAgent()
		if a := n.executes(id, "wait", web.ip.String()+":80"); a != atFirst {
			t.Errorf("with an agent: %d, want %d", a, atFirst)
		}
		if n.front == byNRI {
			n.wantAnnounced("web", "friend")
		}
	})
}

// A node that just booted has no rules at all.
func TestAPodThatStartsBeforeAnyAgentIsClosed(t *testing.T) {
	eachFront(t, func(t *testing.T, n *node) {
		web := n.run("web")
		n.serve(web)
		if a := n.dials(n.run("friend"), web); a != never {
			t.Errorf("the friend's first packet: %d, want %d", a, never)
		}
	})
}

func TestTheRuntimeIsStartedAgain(t *testing.T) {
	eachFront(t, func(t *testing.T, n *node) {
		n.publish(object("web"), object("friend"), object("later"), onlyFromFriend)
		n.startAgent()
		web := n.run("web")
		n.serve(web)
		n.containerd.stop(syscall.SIGTERM)
		n.wantAnnounced("web") // pods outlive the runtime
		n.startContainerd()
		if n.front == byNRI {
			n.awaitNRI(0)
		}
		friend := n.run("friend")
		n.wantAnnounced("web", "friend")
		if a := n.dials(friend, web); a != atFirst {
			t.Errorf("the friend's first packet: %d, want %d", a, atFirst)
		}
		n.stop(web) // containerd 2.4 does not tell NRI of the end of a pod from before
		await(t, "the pod is withdrawn", func() bool { return slices.Equal(n.announced(), n.said("friend")) })
	})
}

// Nobody remembers the pods but the runtime, which reads them from its disk.
func TestNRISaysWhatRunsToThoseWhoComeLater(t *testing.T) {
	n := newNode(t, none)
	n.publish(object("web"), object("friend"), onlyFromFriend)
	web, friend := n.run("web"), n.run("friend")
	n.serve(web)
	id := n.container(friend, "pause")
	n.containerd.stop(syscall.SIGKILL)
	n.startAgent()
	n.wantAnnounced()
	n.startContainerd()
	n.front = byNRI
	n.startNRI()
	await(t, "both pods are announced", func() bool { return slices.Equal(n.announced(), n.said("web", "friend")) })
	if a := n.executes(id, "dial", web.ip.String()+":80"); a != atFirst {
		t.Errorf("the friend: %d, want %d", a, atFirst)
	}
}

// containerd asks the plugins' STATUS, so that no pod is sent to a node on which
// it would start closed.
func TestANodeWithoutAnAgentIsNotReadyByCNI(t *testing.T) {
	n := newNode(t, byCNI)
	await(t, "the network is not ready", func() bool { return n.cri.ready() && !n.cri.condition("NetworkReady") })
	n.publish()
	n.startAgent()
	await(t, "the network is ready", func() bool { return n.cri.condition("NetworkReady") })
}
