//go:build !linux

package main

import "net"

func quick(conn *net.TCPConn) (net.Conn, error) { return conn, nil }
