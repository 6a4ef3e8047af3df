package cdc

// PartitionFor places a key as Kafka's default partitioner does: murmur2 of
// the serialized key, sign bit cleared, modulo the number of partitions. The
// count is the pinned one, so that a grown topic moves no key.
// (org.apache.kafka.clients.producer.internals.BuiltInPartitioner.)
func PartitionFor(placement []byte, partitions int32) int32 {
	return int32(murmur2(placement)&0x7fffffff) % partitions
}

// murmur2 is the 32-bit hash of that name with Kafka's seed.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(data))
	for len(data) >= 4 {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h *= m
		h ^= k
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
