package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// CheckFree returns an error if a process already listens on any of the addresses, host:port. The error names these
// addresses, and the processes.
func CheckFree(ctx context.Context, addrs ...string) error {
	var taken []error
	for _, addr := range addrs {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("%q is not host:port: %w", addr, err)
		}
		// Pushpin listens on all addresses of the machine. It fails if one of them is taken.
		for _, host := range []string{"127.0.0.1", ""} {
			l, err := net.Listen("tcp4", net.JoinHostPort(host, port))
			if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("port %s cannot be used: %w", port, err)
			}
			if err != nil {
				taken = append(taken, fmt.Errorf("port %s is taken by %s", port, listenerOn(ctx, port)))
				break
			}
			l.Close()
		}
	}
	return errors.Join(taken...)
}

// Preflight is CheckFree for a person at a terminal. The error also says what to do.
func Preflight(ctx context.Context, addrs ...string) error {
	err := CheckFree(ctx, addrs...)
	if err == nil {
		return nil
	}
	return fmt.Errorf(`%w
viceroy, pushpin (also condure, connmgr, zurl and pushpin-…) and origin belong to another make demo,
make serve or fastly compute serve: stop it. If only pushpin runs, it may be a service of the system:
sudo service pushpin stop. Or choose other ports. For the app: ADDR=127.0.0.1:port. In fastly.toml:
proxy_port and publish_port below [local_server.pushpin], and url for the origin`, err)
}

// Prepare is for a program that serves the app of this directory at addr, a host:port, and brings its own origin. It
// installs the tools, if needed, reads fastly.toml, and checks that the ports are free. It returns an error if the
// origin is not on this machine. With an empty addr it checks only the origin's port.
func Prepare(ctx context.Context, addr string) (Tools, Manifest, error) {
	tools, err := Ensure(ctx, os.Stderr)
	if err != nil {
		return Tools{}, Manifest{}, err
	}
	m, err := ReadManifest(".")
	if err != nil {
		return Tools{}, Manifest{}, err
	}
	if a, err := net.ResolveTCPAddr("tcp", m.Origin); err != nil || !a.IP.IsLoopback() {
		return Tools{}, Manifest{}, fmt.Errorf("fastly.toml has the backend origin at %s, but this command starts its own origin on this machine: set url to http://localhost:3000/, or use make serve", m.Origin)
	}
	ports := []string{m.Origin}
	if addr != "" {
		ports = append(append(ports, addr), m.Addresses()...)
	}
	return tools, m, Preflight(ctx, ports...)
}

// claimed has the ports that this process can still use: from next to the one before end. A process claims a block of
// a hundred ports: it listens on the first port of the block until it ends. So two test runs never use the same
// ports. The blocks are below the ports that systems give to clients.
var claimed struct {
	sync.Mutex
	claims    []net.Listener
	next, end int
}

// FreePorts returns the first of n ports in a row, at most 99, that nothing listens on.
func FreePorts(ctx context.Context, n int) (int, error) {
	claimed.Lock()
	defer claimed.Unlock()
	for range 200 {
		if claimed.next+n > claimed.end {
			block := 20000 + 100*rand.IntN(100)
			claim, err := net.Listen("tcp4", local(block))
			if err != nil {
				continue // another process has this block
			}
			claimed.claims = append(claimed.claims, claim)
			claimed.next, claimed.end = block+1, block+100
		}
		first := claimed.next
		claimed.next += n
		addrs := make([]string, n)
		for i := range addrs {
			addrs[i] = local(first + i)
		}
		if CheckFree(ctx, addrs...) == nil {
			return first, nil
		}
	}
	return 0, fmt.Errorf("there are no %d free ports in a row", n)
}

// listenerOn describes the process that listens on the port.
func listenerOn(ctx context.Context, port string) string {
	conns, _ := psnet.ConnectionsWithContext(ctx, "tcp")
	for _, c := range conns {
		if c.Status != "LISTEN" || strconv.Itoa(int(c.Laddr.Port)) != port || c.Pid == 0 {
			continue
		}
		p, err := process.NewProcessWithContext(ctx, c.Pid)
		if err != nil {
			continue
		}
		name, _ := p.NameWithContext(ctx)
		command, _ := p.CmdlineSliceWithContext(ctx)
		return fmt.Sprintf("process %d, %s (%.60s)", c.Pid, name, strings.Join(command, " "))
	}
	return fmt.Sprintf("a process that only its owner can see (to find it: sudo lsof -nP -iTCP:%s -sTCP:LISTEN)", port)
}
