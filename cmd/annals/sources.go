package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
)

// A source measures one thing again and again. Its measurements go into one
// series, as JSON objects whose fields have their units in their names.
type source struct {
	series  string
	measure func(now time.Time) (measurement, error)
}

// A measurement is written as JSON and shown as text.
type measurement fmt.Stringer

// machineSources measure the machine that this runs on. Sources of rates count
// from the measurement before; the first one gives errFirst.
func machineSources() []source {
	return []source{
		{"load", measureLoad},
		{"cpu", rate(cpuCounters, cpuRate)},
		{"memory", measureMemory},
		{"disk", rate(diskCounters, diskRate)},
		{"network", rate(networkCounters, networkRate)},
	}
}

// errFirst means that there is nothing to count from yet.
var errFirst = errors.New("the first measurement of a rate")

// rate measures what counters have grown by in the time between two readings.
func rate[C any](read func() (C, error), per func(before, after C, seconds float64) measurement) func(time.Time) (measurement, error) {
	var last C
	var lastTime time.Time
	return func(now time.Time) (measurement, error) {
		counters, err := read()
		if err != nil {
			return nil, err
		}
		before, seconds := last, now.Sub(lastTime).Seconds()
		first := lastTime.IsZero()
		last, lastTime = counters, now
		if first || seconds <= 0 {
			return nil, errFirst
		}
		return per(before, counters, seconds), nil
	}
}

type loadMeasurement struct {
	Load1  float64 `json:"load1"`
	Load5  float64 `json:"load5"`
	Load15 float64 `json:"load15"`
}

func (m loadMeasurement) String() string { return fmt.Sprintf("load %.2f", m.Load1) }

func measureLoad(time.Time) (measurement, error) {
	avg, err := load.Avg()
	if err != nil {
		return nil, err
	}
	return loadMeasurement{round(avg.Load1), round(avg.Load5), round(avg.Load15)}, nil
}

type cpuMeasurement struct {
	Busy   float64 `json:"busy_pct"`
	User   float64 `json:"user_pct"`
	System float64 `json:"system_pct"`
	IOWait float64 `json:"iowait_pct"`
}

func (m cpuMeasurement) String() string { return fmt.Sprintf("cpu %3.0f %%", m.Busy) }

func cpuCounters() (cpu.TimesStat, error) {
	times, err := cpu.Times(false)
	if err == nil && len(times) == 0 {
		err = errors.New("no CPU times")
	}
	if err != nil {
		return cpu.TimesStat{}, err
	}
	return times[0], nil
}

// cpuRate is in percent of all CPUs. The kernel counts guest time as user time,
// and idle time can seem to go back a little, hence the bound.
func cpuRate(before, after cpu.TimesStat, _ float64) measurement {
	user := after.User + after.Nice - before.User - before.Nice
	system := after.System + after.Irq + after.Softirq + after.Steal - before.System - before.Irq - before.Softirq - before.Steal
	wait := after.Iowait - before.Iowait
	total := user + system + wait + after.Idle - before.Idle
	percent := func(part float64) float64 {
		if total <= 0 {
			return 0
		}
		return round(min(max(100*part/total, 0), 100))
	}
	return cpuMeasurement{percent(user + system), percent(user), percent(system), percent(wait)}
}

type memoryMeasurement struct {
	UsedPct   float64 `json:"used_pct"`
	Used      uint64  `json:"used_bytes"`
	Available uint64  `json:"available_bytes"`
	Total     uint64  `json:"total_bytes"`
	SwapUsed  uint64  `json:"swap_used_bytes"`
}

func (m memoryMeasurement) String() string { return fmt.Sprintf("memory %.0f %%", m.UsedPct) }

func measureMemory(time.Time) (measurement, error) {
	memory, err := mem.VirtualMemory()
	if err != nil {
		return nil, err
	}
	m := memoryMeasurement{UsedPct: round(memory.UsedPercent), Used: memory.Used, Available: memory.Available, Total: memory.Total}
	if swap, err := mem.SwapMemory(); err == nil { // a system without swap is no failure
		m.SwapUsed = swap.Used
	}
	return m, nil
}

type diskMeasurement struct {
	Read   float64 `json:"read_bytes_per_s"`
	Write  float64 `json:"write_bytes_per_s"`
	Reads  float64 `json:"reads_per_s"`
	Writes float64 `json:"writes_per_s"`
}

func (m diskMeasurement) String() string {
	return fmt.Sprintf("disk %s/s in, %s/s out", byteCount(int64(m.Read)), byteCount(int64(m.Write)))
}

// diskCounters adds up the whole disks. Partitions, and what is made of disks,
// would count the same bytes again.
func diskCounters() (sum disk.IOCountersStat, err error) {
	all, err := disk.IOCounters()
	if err != nil {
		return sum, err
	}
	for name, d := range all {
		if isPart(name, all) {
			continue
		}
		sum.ReadBytes += d.ReadBytes
		sum.WriteBytes += d.WriteBytes
		sum.ReadCount += d.ReadCount
		sum.WriteCount += d.WriteCount
	}
	return sum, nil
}

// isPart reports whether a block device is a partition of another one, such as
// sda1 of sda, or is made of others.
func isPart(name string, all map[string]disk.IOCountersStat) bool {
	for _, prefix := range []string{"dm-", "md", "loop", "ram", "zram"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for whole := range all {
		if whole != name && strings.HasPrefix(name, whole) {
			return true
		}
	}
	return false
}

func diskRate(before, after disk.IOCountersStat, seconds float64) measurement {
	return diskMeasurement{
		Read:   perSecond(before.ReadBytes, after.ReadBytes, seconds),
		Write:  perSecond(before.WriteBytes, after.WriteBytes, seconds),
		Reads:  perSecond(before.ReadCount, after.ReadCount, seconds),
		Writes: perSecond(before.WriteCount, after.WriteCount, seconds),
	}
}

type networkMeasurement struct {
	Received        float64 `json:"received_bytes_per_s"`
	Sent            float64 `json:"sent_bytes_per_s"`
	ReceivedPackets float64 `json:"received_packets_per_s"`
	SentPackets     float64 `json:"sent_packets_per_s"`
}

func (m networkMeasurement) String() string {
	return fmt.Sprintf("network %s/s in, %s/s out", byteCount(int64(m.Received)), byteCount(int64(m.Sent)))
}

// networkCounters adds up all interfaces but the loopback.
func networkCounters() (sum net.IOCountersStat, err error) {
	all, err := net.IOCounters(true)
	if err != nil {
		return sum, err
	}
	for _, n := range all {
		if n.Name == "lo" || n.Name == "lo0" || strings.HasPrefix(n.Name, "Loopback") {
			continue
		}
		sum.BytesRecv += n.BytesRecv
		sum.BytesSent += n.BytesSent
		sum.PacketsRecv += n.PacketsRecv
		sum.PacketsSent += n.PacketsSent
	}
	return sum, nil
}

func networkRate(before, after net.IOCountersStat, seconds float64) measurement {
	return networkMeasurement{
		Received:        perSecond(before.BytesRecv, after.BytesRecv, seconds),
		Sent:            perSecond(before.BytesSent, after.BytesSent, seconds),
		ReceivedPackets: perSecond(before.PacketsRecv, after.PacketsRecv, seconds),
		SentPackets:     perSecond(before.PacketsSent, after.PacketsSent, seconds),
	}
}

// perSecond is 0 where a counter went back, as at the restart of a device.
func perSecond(before, after uint64, seconds float64) float64 {
	if after < before {
		return 0
	}
	return round(float64(after-before) / seconds)
}

// round keeps two decimals: measurements are no more exact, and lines stay short.
func round(x float64) float64 { return math.Round(x*100) / 100 }
