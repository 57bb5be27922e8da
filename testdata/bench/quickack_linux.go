package main

import (
	"net"
	"syscall"
)

// quickConn acknowledges received data at once. Viceroy does not set TCP_NODELAY. So, when it has sent the head
// of a response, a small body waits until the client acknowledges the head, and Linux may delay that by 40 ms.
// This delay comes neither from the app nor from Fastly, so it is not measured.
type quickConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

func quick(conn *net.TCPConn) (net.Conn, error) {
	raw, err := conn.SyscallConn()
	return quickConn{conn, raw}, err
}

func (c quickConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.raw.Control(func(fd uintptr) { // after each read, as the option is not permanent: tcp(7)
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
	return n, err
}
