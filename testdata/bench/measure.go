package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/shirou/gopsutil/v4/process"
)

// figures are the measurements of one implementation on one workload.
type figures struct {
	latency  *hdrhistogram.Histogram // in microseconds
	duration time.Duration
	cpu      time.Duration // of the Viceroy process, user and system
	peak     uint64        // the most resident memory of that process, in bytes
	heap     float64       // the largest heap of a sandbox, in MiB
	errors   int
	firstErr string
}

func newFigures() figures {
	return figures{latency: hdrhistogram.New(1, time.Minute.Microseconds(), 3)}
}

func (f figures) rate() float64 { return float64(f.latency.TotalCount()) / f.duration.Seconds() }

// add adds the figures of another round.
func (f *figures) add(g figures) {
	f.latency.Merge(g.latency)
	f.duration += g.duration
	f.cpu += g.cpu
	f.peak, f.heap = max(f.peak, g.peak), max(f.heap, g.heap)
	if f.errors == 0 {
		f.firstErr = g.firstErr
	}
	f.errors += g.errors
}

// measure runs the workload on this implementation only, and measures after the warm-up.
func (impl *implementation) measure(ctx context.Context, o options, w workload) (f figures, err error) {
	f = newFigures()
	if err := impl.resume(); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, impl.suspend()) }()
	attack, stop := context.WithCancel(ctx)
	defer stop()
	results := w.attack(attack, impl.addr, o.clients)
	warm := time.After(o.warmup)
	var began, ended time.Time
	var before time.Duration
	sample := time.NewTicker(50 * time.Millisecond)
	defer sample.Stop()
	for {
		select {
		case <-warm:
			var err error
			if before, err = cpuTime(impl.viceroy); err != nil {
				return f, err
			}
			impl.log.reset()
			began = time.Now()
			warm = nil
		case <-sample.C:
			info, err := impl.viceroy.MemoryInfo()
			if err != nil {
				return f, fmt.Errorf("read the memory of Viceroy: %w", err)
			}
			if !began.IsZero() {
				f.peak = max(f.peak, info.RSS)
			}
			if !began.IsZero() && ended.IsZero() && time.Since(began) >= o.duration {
				after, err := cpuTime(impl.viceroy)
				if err != nil {
					return f, err
				}
				ended = time.Now()
				f.duration, f.cpu, f.heap = ended.Sub(began), after-before, impl.log.heap()
				stop() // only now: all clients must be busy until the measurement ends
			}
		case r, ok := <-results:
			if !ok {
				if ctx.Err() != nil {
					return f, ctx.Err()
				}
				if ended.IsZero() {
					return f, fmt.Errorf("the workload ended too early: %s", f.firstErr)
				}
				return f, nil
			}
			if r.Error != "" {
				if f.errors++; f.errors == 1 {
					f.firstErr = r.Error
				}
			} else if !began.IsZero() && ended.IsZero() {
				f.latency.RecordValue(max(r.Latency.Microseconds(), 1))
			}
		}
	}
}

func cpuTime(p *process.Process) (time.Duration, error) {
	times, err := p.Times()
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of Viceroy: %w", err)
	}
	return time.Duration((times.User + times.System) * float64(time.Second)), nil
}

// sandboxLog collects Viceroy's log, which has the heap size of each sandbox.
type sandboxLog struct {
	mu   sync.Mutex
	text bytes.Buffer // since the last reset
}

var heapPattern = regexp.MustCompile(`using ([0-9.]+) Mi?B of WebAssembly heap`)

func (l *sandboxLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *sandboxLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

// heap returns the size of the largest sandbox that has ended, in MiB.
func (l *sandboxLog) heap() (largest float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, match := range heapPattern.FindAllSubmatch(l.text.Bytes(), -1) {
		if size, err := strconv.ParseFloat(string(match[1]), 64); err == nil {
			largest = max(largest, size)
		}
	}
	return largest
}

// tail returns the last lines of the log.
func (l *sandboxLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(l.text.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
