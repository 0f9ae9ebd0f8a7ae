// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// client asks a runtime as a kubelet does.
type client struct {
	t      *testing.T
	pods   cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

func connect(t *testing.T, socket string) *client {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the runtime may be gone
	return &client{t, cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)}
}

// limit is how long one request may take.
const limit = 2 * time.Minute

func (c *client) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(c.t.Context()), limit) // it serves cleanups too
}

// condition returns one of the conditions RuntimeReady and NetworkReady.
func (c *client) condition(name string) bool {
	ctx, cancel := c.context()
	defer cancel()
	r, err := c.pods.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return false
	}
	for _, condition := range r.GetStatus().GetConditions() {
		if condition.GetType() == name {
			return condition.GetStatus()
		}
	}
	return false
}

func (c *client) ready() bool { return c.condition(cri.RuntimeReady) }

// sandbox is a pod that runs.
type sandbox struct {
	id     string
	ip     netip.Addr
	took   time.Duration
	config *cri.PodSandboxConfig
}

// tryRun starts a pod without containers.
func (n *node) tryRun(name string, f front) (s sandbox, err error) {
	n.t.Helper()
	ctx, cancel := n.cri.context()
	defer cancel()
	s.config = &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: uid(name)},
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: cgroupParent()}}
	start := time.Now()
	r, err := n.cri.pods.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: s.config, RuntimeHandler: f.handler()})
	if err != nil {
		return s, err
	}
	s.took, s.id = time.Since(start), r.GetPodSandboxId()
	status, err := n.cri.pods.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.id})
	if err != nil {
		return s, err
	}
	s.ip, err = netip.ParseAddr(status.GetStatus().GetNetwork().GetIp())
	return s, err
}

// cgroupParent lies below our own cgroup; where there is one hierarchy only,
// below the top, since a group with processes can have no groups that count.
func cgroupParent() string {
	name := os.Getenv(worldVariable)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "/" + name
	}
	return name
}

// run starts a pod, which is stopped and removed with the test.
func (n *node) run(name string) sandbox {
	n.t.Helper()
	s, err := n.tryRun(name, n.front)
	check(n.t, err)
	return s
}

func (n *node) stop(s sandbox) {
	n.t.Helper()
	ctx, cancel := n.cri.context()
	defer cancel()
	_, err := n.cri.pods.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.id})
	check(n.t, err)
}

// removePods removes all pods of the runtime; one that was stopped has none.
func (n *node) removePods() {
	ctx, cancel := n.cri.context()
	defer cancel()
	r, err := n.cri.pods.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	for _, s := range r.GetItems() {
		_, stopped := n.cri.pods.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.GetId()})
		_, removed := n.cri.pods.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: s.GetId()})
		err = errors.Join(err, stopped, removed)
	}
	if err != nil && n.containerd.runs() {
		n.t.Errorf("removing the pods: %v", err)
	}
}

// container starts probe in a pod and returns the container's identifier.
func (n *node) container(s sandbox, args ...string) string {
	n.t.Helper()
	ctx, cancel := n.cri.context()
	defer cancel()
	c, err := n.cri.pods.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: s.id, SandboxConfig: s.config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: args[0]}, Image: &cri.ImageSpec{Image: image}, Command: append([]string{"/probe"}, args...),
		Linux: &cri.LinuxContainerConfig{}}})
	check(n.t, err)
	_, err = n.cri.pods.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.GetContainerId()})
	check(n.t, err)
	return c.GetContainerId()
}

// answer is what the program probe says of a connection, by its exit status.
type answer int

const (
	atFirst answer = 0 // the first packet was answered
	later   answer = 3 // a packet had to be sent again
	never   answer = 4
)

// dials returns what the first packet of a new pod's first container meets.
func (n *node) dials(from, to sandbox) answer {
	n.t.Helper()
	id := n.container(from, "dial", netip.AddrPortFrom(to.ip, port).String())
	var status *cri.ContainerStatus
	await(n.t, "the container ends", func() bool {
		ctx, cancel := n.cri.context()
		defer cancel()
		r, err := n.cri.pods.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
		check(n.t, err)
		status = r.GetStatus()
		return status.GetState() == cri.ContainerState_CONTAINER_EXITED
	})
	return answer(status.GetExitCode())
}

// executes runs probe once more in a container.
func (n *node) executes(container string, args ...string) answer {
	n.t.Helper()
	ctx, cancel := n.cri.context()
	defer cancel()
	r, err := n.cri.pods.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: container, Cmd: append([]string{"/probe"}, args...), Timeout: int64(limit.Seconds())})
	if err != nil {
		n.t.Fatal(errors.Join(errors.New("executing in a container"), err))
	}
	return answer(r.GetExitCode())
}

const port = 80

// serve lets a pod accept connections, and returns when it does.
func (n *node) serve(s sandbox) {
	n.t.Helper()
	id := n.container(s, "serve", "80")
	if a := n.executes(id, "wait", "127.0.0.1:80"); a != atFirst {
		n.t.Fatalf("the server does not answer within its pod: status %d", a)
	}
}
