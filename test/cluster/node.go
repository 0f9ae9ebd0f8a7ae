// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	own "github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// Node is a node of the cluster.
type Node struct {
	Name  string
	Addrs []netip.Addr

	index   int
	options *Options
	plan    plan
	cluster *Cluster
	client  *kubernetes.Clientset
	control string // directory of the control plane
	disk    string // directory of what survives a reboot
	images  []string

	ns       *own.NS
	first    *exec.Cmd // the first process
	programs []*process.Process
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i) }

func (c *Cluster) newNode(i int, images []string) *Node {
	return &Node{Name: nodeName(i), Addrs: addresses(c.plan.node(i)), index: i, options: &c.options, plan: c.plan,
		cluster: c,
		client:  c.client, control: c.dir, disk: filepath.Join(c.dir, nodeName(i)), images: images}
}

// Pid returns the number of the node's first process; a number that no process
// has while the node is down.
func (n *Node) Pid() int {
	if n.first == nil {
		return -1
	}
	return n.first.Process.Pid
}

// Netns is the node's network namespace. It is another one after a reboot.
func (n *Node) Netns() *own.NS { return n.ns }

// boot starts the node and returns when it is ready for pods.
func (n *Node) boot(ctx context.Context) error {
	steps := []func(context.Context) error{n.power, n.startRuntime, n.register, n.startKubelet, n.awaitReady}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return fmt.Errorf("starting %s: %w", n.Name, err)
		}
	}
	return nil
}

// PowerOff ends everything on the node at once, as the loss of power does. Its files stay for Reboot.
func (n *Node) PowerOff() error { return n.down() }

// Reboot ends everything on the node at once, as the loss of power does, and
// starts it again with the files that it had. It does not wait for the kubelet.
func (n *Node) Reboot(ctx context.Context) error {
	if err := n.down(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{n.power, n.startRuntime, n.startKubelet} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("rebooting %s: %w", n.Name, err)
		}
	}
	return nil
}

// power makes the node's namespaces, links and files.
func (n *Node) power(context.Context) (err error) {
	if n.ns, err = own.New(); err != nil {
		return err
	}
	settings := router()
	if n.options.Wiring == Bridge { // packets between pods of a node must pass kube-proxy's rules
		settings = append(settings, own.Sysctl{Path: "bridge/bridge-nf-call-iptables", Value: "1"},
			own.Sysctl{Path: "bridge/bridge-nf-call-ip6tables", Value: "1"})
	}
	if err := errors.Join(n.ns.SetSysctls(settings), n.cluster.plug(n), makeGroups(n.group()),
		os.MkdirAll(n.disk, 0o755)); err != nil {
		return err
	}
	return n.startFirst()
}

// startFirst starts the first process, and returns when it has given the node
// its files.
func (n *Node) startFirst() error {
	n.first = exec.Command("/proc/self/exe")
	n.first.Env = append(os.Environ(), nameVariable+"="+n.Name, diskVariable+"="+n.disk)
	n.first.Stderr = os.Stderr
	n.first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	out, err := n.first.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.ns.Start(n.first); err != nil {
		n.first = nil
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) != furnished {
		return fmt.Errorf("the node's first process says %q: %w", line, err)
	}
	return nil
}

// down kills the node's first process, with which all others end, and lets go
// of its network.
func (n *Node) down() (err error) {
	if n.first != nil {
		_ = n.first.Process.Kill() // it may have ended by itself
		_ = n.first.Wait()         // killed is what it should be
		n.first = nil
	}
	for _, p := range n.programs {
		<-p.Ended()
	}
	n.programs = nil
	if n.ns != nil {
		err = n.ns.Close()
		n.ns = nil
	}
	return err
}

// Start starts a program on the node, with its output in a file of the node's
// name and the program's. It ends with the node.
func (n *Node) Start(name, program string, args ...string) (*process.Process, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), n.path())
	p, err := process.Start(cmd, process.Options{Name: n.Name + "'s " + name, Log: n.log(name), Start: n.start})
	if err == nil {
		n.programs = append(n.programs, p)
	}
	return p, err
}

func (n *Node) log(name string) string { return filepath.Join(n.control, n.Name+"-"+name+".log") }

func (n *Node) bin(program string) string { return filepath.Join(n.options.Bin, program) }

// startRuntime starts containerd and, at the first time, gives it its images.
func (n *Node) startRuntime(ctx context.Context) error {
	fresh := !exists(n.File(runtimeConfig)) || !exists(n.File(networkConfig))
	if fresh {
		if err := n.installNetwork(); err != nil {
			return err
		}
	}
	p, err := n.Start("containerd", n.bin("containerd/containerd"))
	if err != nil {
		return err
	}
	err = Await(ctx, "containerd", patience, func(ctx context.Context) error {
		_, err := n.ctr(ctx, "version")
		return errors.Join(err, process.Lives(p))
	})
	if err != nil || !fresh {
		return err
	}
	for _, file := range n.images {
		if err := n.Import(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

// installNetwork writes the configuration of containerd and of the pod network,
// in place of what this machine may have.
func (n *Node) installNetwork() error {
	err := errors.Join(os.RemoveAll(n.File("/etc/cni")), os.RemoveAll(n.File(networkPlugins)),
		n.write(runtimeConfig, runtimeText()), n.write(networkConfig, n.networkText()),
		n.write(plainConfig, n.networkText()))
	for _, program := range []string{"bridge", "ptp", "host-local", "portmap"} {
		data, read := os.ReadFile(n.bin("cni/" + program))
		to := n.File(filepath.Join(networkPlugins, program))
		err = errors.Join(err, read, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755))
	}
	return err
}

func (n *Node) ctr(ctx context.Context, args ...string) (string, error) {
	return n.Run(ctx, n.bin("containerd/ctr"), append([]string{"--address", runtimeSocket, "--namespace", "k8s.io"},
		args...)...)
}

// Import gives the node the images of an archive, as an operator does where there
// is no registry.
func (n *Node) Import(ctx context.Context, archive string) error {
	archive, err := filepath.Abs(archive) // the node's working directory is another
	if err == nil {
		_, err = n.ctr(ctx, "images", "import", archive)
	}
	return err
}

// register makes the Node's object with the range of its pods, which else a
// controller gives out in an order of its own.
func (n *Node) register(ctx context.Context) error {
	pods := texts(n.plan.pods(n.index))
	labels := map[string]string{corev1.LabelHostname: n.Name, corev1.LabelOSStable: "linux"}
	if n.options.Zones > 0 {
		labels[corev1.LabelTopologyZone] = fmt.Sprintf("zone%d", (n.index-1)%n.options.Zones+1)
	}
	_, err := n.client.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: labels},
		Spec:       corev1.NodeSpec{PodCIDR: pods[0], PodCIDRs: pods}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = nil
	}
	return err
}

// Forget takes an image from the node; containers that run are not touched.
func (n *Node) Forget(ctx context.Context, name string) error {
	_, err := n.ctr(ctx, "images", "remove", "--sync", name)
	return err
}

// Images returns the names of the node's images.
func (n *Node) Images(ctx context.Context) ([]string, error) {
	text, err := n.ctr(ctx, "images", "list", "--quiet")
	return strings.Fields(text), err
}

// startKubelet starts the kubelet, and kube-proxy unless the options say none.
func (n *Node) startKubelet(context.Context) error {
	if err := n.write(kubeletConfig, n.kubeletText()); err != nil {
		return err
	}
	_, err := n.Start("kubelet", n.bin("kube"), "kubelet", "--config="+kubeletConfig,
		"--kubeconfig="+filepath.Join(n.control, n.Name+".kubeconfig"),
		"--hostname-override="+n.Name, "--node-ip="+strings.Join(texts(n.Addrs), ","))
	if err != nil || n.options.Proxy == NoProxy {
		return err
	}
	_, err = n.StartProxy(n.options.Proxy)
	return err
}

// StartProxy starts kube-proxy in a mode. It ends with the node, or when the caller ends it.
func (n *Node) StartProxy(mode Proxy) (*process.Process, error) {
	if err := n.write(proxyConfig, n.proxyText(mode)); err != nil {
		return nil, err
	}
	return n.Start("kube-proxy", n.bin("kube-proxy"), "--config="+proxyConfig)
}

// awaitReady waits until the kubelet says that pods can start.
func (n *Node) awaitReady(ctx context.Context) error {
	return Await(ctx, "the kubelet", patience, func(ctx context.Context) error {
		if err := process.Lives(n.programs...); err != nil {
			return err
		}
		return n.Ready(ctx)
	})
}

// Ready says why the node is not ready for pods; nil if it is.
func (n *Node) Ready(ctx context.Context) error {
	node, err := n.client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	why := "the kubelet has said nothing yet"
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
		if condition.Type == corev1.NodeReady {
			why = condition.Message
		}
	}
	return fmt.Errorf("%s is not ready: %s\n%s", n.Name, why, process.Tail(n.log("kubelet")))
}
