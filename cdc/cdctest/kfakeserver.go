package cdctest

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
)

// kfakeBrokers is the number of nodes of a fake cluster: several, so that the
// partitions of one transaction have different leaders.
const kfakeBrokers = 3

// NewKfakeServer makes a fake cluster without starting it. Its data is kept in
// a directory, so that it comes back after Stop and Start. Topics are never
// created by themselves.
func NewKfakeServer() (*KafkaServer, error) {
	ports, err := freePorts(kfakeBrokers)
	if err != nil {
		return nil, err
	}
	root, err := newServerDir()
	if err != nil {
		return nil, err
	}
	s := &KafkaServer{root: root, stopOrder: "stop"}
	// A cluster id of its own: the relay must notice when it is moved from one
	// cluster to another.
	args := []string{root, uuid.NewString()}
	for _, port := range ports {
		args = append(args, strconv.Itoa(port))
		s.brokers = append(s.brokers, loopback(port))
	}
	s.launch = func(log *os.File) (*helper, error) { return startHelper(roleKfake, log, args...) }
	return s, nil
}

// serveKfake is the process of a fake cluster. A line on standard input closes
// it in good order; the end of standard input without one means that the parent
// is gone, and the data with it.
//
// It must never be killed: kfake then aborts open transactions in memory without
// writing the abort markers, and consumers drop later records of the same
// producer, or never reach the end, which no real broker shows.
func serveKfake(args []string) error {
	root, clusterID := args[0], args[1]
	ports := make([]int, 0, len(args)-2)
	for _, arg := range args[2:] {
		port, err := strconv.Atoi(arg)
		if err != nil {
			return fmt.Errorf("read port: %w", err)
		}
		ports = append(ports, port)
	}
	cluster, err := kfake.NewCluster(
		kfake.Ports(ports...),
		kfake.ClusterID(clusterID), // what is stored wins
		kfake.DataDir(filepath.Join(root, "data")),
		kfake.WithLogger(kfake.BasicLogger(os.Stderr, kfake.LogLevelWarn)),
	)
	if err != nil {
		return fmt.Errorf("start kfake: %w", err)
	}
	fmt.Println("ready")
	_, orphaned := bufio.NewReader(os.Stdin).ReadString('\n')
	cluster.Close()
	if orphaned != nil {
		return removeServerDir(root)
	}
	return nil
}
