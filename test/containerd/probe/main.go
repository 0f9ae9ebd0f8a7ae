// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command probe is what runs in the pods of these tests. Its exit status is its
// answer, so that a runtime's status of a container says it.
//
//	probe pause         does nothing, until it is stopped
//	probe serve PORT    accepts connections
//	probe dial ADDRESS  connects, with the first packet that it sends
//	probe wait ADDRESS  connects, trying again for some seconds
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The exit statuses of dial.
const (
	first  = 0 // the first packet was answered
	usage  = 2
	later  = 3 // a packet had to be sent again
	silent = 4 // nothing was answered
)

// patience is longer than the second after which the kernel sends a first packet
// again, so that an answer to the second one is seen as such.
const patience = 2500 * time.Millisecond

func main() {
	if len(os.Args) < 2 {
		os.Exit(usage)
	}
	argument := ""
	if len(os.Args) > 2 {
		argument = os.Args[2]
	}
	switch os.Args[1] {
	case "pause":
		pause()
	case "serve":
		serve(argument)
	case "dial":
		os.Exit(dial(argument))
	case "wait":
		os.Exit(wait(argument))
	default:
		os.Exit(usage)
	}
}

func pause() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

func serve(port string) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			_ = c.Close() // that it came about is all
		}
	}()
	pause()
}

func dial(address string) int {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		fmt.Println(err)
		return silent
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		fmt.Println(err)
		return usage
	}
	var info *unix.TCPInfo
	var problem error
	err = raw.Control(func(fd uintptr) {
		info, problem = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP,
			unix.TCP_INFO)
	})
	switch {
	case err != nil || problem != nil:
		fmt.Println(err, problem)
		return usage
	case info.Total_retrans > 0:
		return later
	}
	return first
}

func wait(address string) int {
	for range 200 {
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err == nil {
			_ = conn.Close() // that it came about is all
			return first
		}
		time.Sleep(25 * time.Millisecond)
	}
	return silent
}
