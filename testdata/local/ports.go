package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// errTaken is in the error of CheckFree for a port that another process has.
var errTaken = errors.New("is taken by")

// CheckFree returns an error if a process already listens on any of the addresses, host:port. The
// error names these addresses, and the processes.
func CheckFree(ctx context.Context, addrs ...string) error {
	var errs []error
	for _, addr := range addrs {
		_, port, _ := net.SplitHostPort(addr)
		// Pushpin listens on all addresses of the machine, and fails if one of them is taken. A
		// server that has only the IPv6 address would get the requests to localhost.
		for _, try := range [][2]string{{"tcp4", "127.0.0.1"}, {"tcp4", ""}, {"tcp6", "::1"}, {"tcp6", ""}} {
			l, err := net.Listen(try[0], net.JoinHostPort(try[1], port))
			if err == nil {
				l.Close()
				continue
			}
			if errors.Is(err, syscall.EADDRINUSE) {
				errs = append(errs, fmt.Errorf("port %s %w %s", port, errTaken, holder(ctx, port)))
				break
			}
			if try[0] == "tcp4" { // a system without IPv6 is fine
				errs = append(errs, fmt.Errorf("port %s cannot be used: %w", port, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// Preflight is CheckFree for a person at a terminal. The error also says what to do.
func Preflight(ctx context.Context, m Manifest, addrs ...string) error {
	err := CheckFree(ctx, addrs...)
	if errors.Is(err, errTaken) {
		err = fmt.Errorf(`%w
viceroy, pushpin (also condure, connmgr, zurl and pushpin-…) and origin belong to another make demo, make serve or
fastly compute serve: stop it. If only pushpin runs, it may be a service of the system: sudo service pushpin stop`, err)
	}
	if err != nil {
		err = fmt.Errorf(`%w
To use other ports, run make with ADDR=127.0.0.1:port for the app. In fastly.toml, set proxy_port (now %d) and
publish_port (now %d; Pushpin also needs the three after it) under [local_server.pushpin], and url (now at %s)
under [local_server.backends.origin]`,
			err, m.ProxyPort, m.PublishPort, m.Origin)
	}
	return err
}

// claimed has the ports that this process can still use: from next to the one before end. A
// process claims a block of a hundred ports: it listens on the first port of the block
// until it ends. So two test runs never use the same ports. The blocks are below the ports
// that systems give to clients.
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
			claim, err := net.Listen("tcp4", loopback(block))
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
			addrs[i] = loopback(first + i)
		}
		if CheckFree(ctx, addrs...) == nil {
			return first, nil
		}
	}
	return 0, fmt.Errorf("there are no %d free ports in a row", n)
}

// listeners returns the ids of the processes that this user can see listening on the port.
func listeners(ctx context.Context, port string) (pids []int32) {
	conns, _ := psnet.ConnectionsWithContext(ctx, "tcp")
	for _, c := range conns {
		if c.Status == "LISTEN" && strconv.Itoa(int(c.Laddr.Port)) == port && c.Pid != 0 {
			pids = append(pids, c.Pid)
		}
	}
	return pids
}

// holder describes the process that listens on the port.
func holder(ctx context.Context, port string) string {
	for _, pid := range listeners(ctx, port) {
		if p, err := process.NewProcessWithContext(ctx, pid); err == nil {
			name, _ := p.NameWithContext(ctx)
			command, _ := p.CmdlineSliceWithContext(ctx)
			return fmt.Sprintf("process %d, %s (%.60s)", pid, name, strings.Join(command, " "))
		}
	}
	return fmt.Sprintf("a process that only its owner can see (to find it: sudo lsof -nP -iTCP:%s -sTCP:LISTEN)", port)
}
