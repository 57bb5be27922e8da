package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sync/errgroup"

	"compute-starter-kit-go-fanout-forward/testdata/local"
)

// implementation is a compiled app that `fastly compute serve` serves at addr, a host:port.
type implementation struct {
	name, addr string
	processes  []*process.Process // the Fastly CLI, Pushpin and Viceroy
	viceroy    *process.Process
}

// serve serves a .wasm file on ports of its own, and suspends the processes until measure runs.
func serve(ctx context.Context, tools local.Tools, file string) (*implementation, error) {
	port, err := local.FreePorts(ctx, 6) // Pushpin publishes at four in a row
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".wasm")
	impl := &implementation{name: name, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	var log bytes.Buffer
	app, err := local.Serve(ctx, tools, ".", impl.addr, &log, "--file", file,
		"--pushpin-proxy-port", fmt.Sprint(port+1), "--pushpin-publish-port", fmt.Sprint(port+2))
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, &log)
	}
	if impl.viceroy, err = app.WaitForListener(ctx, impl.addr); err != nil {
		return nil, err
	}
	impl.processes = app.Tree()
	return impl, impl.each((*process.Process).Suspend)
}

func (impl *implementation) each(signal func(*process.Process) error) (err error) {
	for _, p := range impl.processes {
		err = errors.Join(err, signal(p))
	}
	return err
}

// measure resumes the implementation, has the clients send the workload's requests, and suspends
// it again. It returns an error if any request fails.
func (impl *implementation) measure(ctx context.Context, w workload) (f figures, err error) {
	defer func() { err = errors.Join(err, impl.each((*process.Process).Suspend)) }()
	if err := impl.each((*process.Process).Resume); err != nil {
		return f, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: *clients, DialContext: dial}
	defer transport.CloseIdleConnections()
	begin := time.Now().Add(400 * time.Millisecond) // after a warm-up: idle sandboxes end, new ones start
	end := begin.Add(*duration)
	took := make([][]float64, *clients) // in ms
	group, ctx := errgroup.WithContext(ctx)
	for i := range took {
		group.Go(func() error {
			var buffer bytes.Buffer
			for sent := time.Now(); sent.Before(end); sent = time.Now() {
				if err := w.send(ctx, transport, impl.addr, &buffer); err != nil {
					return err
				}
				if now := time.Now(); now.After(begin) && now.Before(end) {
					took[i] = append(took[i], now.Sub(sent).Seconds()*1000)
				}
			}
			return nil
		})
	}
	time.Sleep(time.Until(begin))
	before, beforeErr := impl.viceroy.Times()
	time.Sleep(time.Until(end))
	after, afterErr := impl.viceroy.Times()
	memory, memoryErr := impl.viceroy.MemoryInfo()
	if err := errors.Join(group.Wait(), beforeErr, afterErr, memoryErr); err != nil {
		return f, err
	}
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) == 0 {
		return f, fmt.Errorf("no response within %v", *duration)
	}
	n := float64(len(all))
	cpu := after.User + after.System - before.User - before.System
	return figures{
		n / duration.Seconds(), all[len(all)/2], all[len(all)*99/100],
		cpu * 1000 / n, float64(memory.RSS) / (1 << 20),
	}, nil
}
