package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// link is a network of two hosts at a distance, both of them this machine: a TUN
// device that sends every packet back with its addresses swapped, after half of
// the round trip. What is sent to linkPeer comes back as a connection from
// linkPeer to linkHost, where the server listens, and the answers likewise; TCP
// sees the round trip on both sides. Swapped addresses leave the checksums as
// they were. (Linux documentation, "Universal TUN/TAP device driver".)
type link struct {
	device  *os.File
	halfway atomic.Int64 // nanoseconds
	running sync.WaitGroup
}

const (
	linkHost   = "10.213.0.1"
	linkPeer   = "10.213.0.2"
	linkDevice = "cdcbench"
	linkMTU    = 1500
	// linkQueue is how many packets may be on the way; more are dropped.
	linkQueue = 1 << 14
)

// packet is on its way until due.
type packet struct {
	due  time.Time
	n    int
	data [linkMTU]byte
}

// newLink makes the device, which takes root and iproute2.
func newLink() (*link, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (needs root): %w", err)
	}
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_TUN | syscall.IFF_NO_PI}
	copy(request.name[:], linkDevice)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return nil, errors.Join(fmt.Errorf("make network device %s (needs root): %w", linkDevice, errno), syscall.Close(fd))
	}
	l := &link{device: os.NewFile(uintptr(fd), linkDevice)} // only now: before, a TUN device cannot be polled
	for _, args := range [][]string{
		{"address", "add", linkHost + "/30", "dev", linkDevice},
		{"link", "set", linkDevice, "mtu", fmt.Sprint(linkMTU), "txqueuelen", fmt.Sprint(linkQueue), "up"},
	} {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("ip %v: %w: %s", args, err, output), l.device.Close())
		}
	}
	way := make(chan *packet, linkQueue)
	l.running.Go(func() { l.send(way) })
	l.running.Go(func() { l.deliver(way) })
	return l, nil
}

// over makes the link as long as the round trip.
func (l *link) over(roundTrip time.Duration) { l.halfway.Store(int64(roundTrip / 2)) }

// send puts packets on the way until the device is closed.
func (l *link) send(way chan<- *packet) {
	defer close(way)
	for {
		p := &packet{}
		n, err := l.device.Read(p.data[:])
		if err != nil {
			return
		}
		const versionAndAddresses = 20
		if n < versionAndAddresses || p.data[0]>>4 != 4 {
			continue // of IPv6 the kernel sends some by itself
		}
		source, destination := [4]byte(p.data[12:16]), [4]byte(p.data[16:20])
		copy(p.data[12:16], destination[:])
		copy(p.data[16:20], source[:])
		p.n, p.due = n, time.Now().Add(time.Duration(l.halfway.Load()))
		select {
		case way <- p:
		default:
		}
	}
}

// deliver hands packets over when they are due.
func (l *link) deliver(way <-chan *packet) {
	for p := range way {
		// The runtime's timers are too coarse for a fraction of a millisecond.
		if rest := time.Until(p.due); rest > 0 {
			sleep := syscall.NsecToTimespec(rest.Nanoseconds())
			_ = syscall.Nanosleep(&sleep, nil) // too early does no harm
		}
		_, _ = l.device.Write(p.data[:p.n]) // lost, as packets are
	}
}

// close removes the device.
func (l *link) close() error {
	err := l.device.Close()
	l.running.Wait()
	return err
}
