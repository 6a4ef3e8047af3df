package cdc

// SourceFacts is what the server says about everything that the start
// algorithm decides on. Everything in it was read in one look over SQL; only
// facts read after the slot is ours (Stream.Facts) may decide, the earlier
// look (Source.Inspect) serves for checks and for waiting.
type SourceFacts struct {
	SystemID      string
	ServerVersion int // as server_version_num: 150018
	InRecovery    bool
	WALLevel      string
	Timeline      Timeline
	Lineage       Lineage // of Timeline; filled by Stream.Facts only
	WALPages      WALPages
	WALEnd        LSN // pg_current_wal_flush_lsn(): the end of what may be streamed
	Slot          *SlotFacts
	Publication   *PublicationFacts
	Table         *TableIdentity
}

// SlotFacts is the row of pg_replication_slots; nil in SourceFacts when the
// slot does not exist.
type SlotFacts struct {
	Name               string
	Plugin             string
	Database           string
	Temporary          bool
	TwoPhase           bool
	Active             bool
	ActivePID          int32
	ConfirmedFlush     LSN
	Restart            LSN
	WALStatus          string // reserved, extended, unreserved, lost; empty when restart_lsn is null
	InvalidationReason string // PG 17+; empty before
}

// Lost says whether the slot can never be streamed from again.
func (s *SlotFacts) Lost() bool { return s.WALStatus == "lost" || s.InvalidationReason != "" }

// PublicationFacts is what pg_publication and pg_publication_rel say; nil in
// SourceFacts when the publication does not exist or lacks the table.
type PublicationFacts struct {
	PublicationIdentity
	PublishesInsert bool
}

// KafkaFacts is what the cluster says about itself and the pinned topics,
// read after every transactional id was fenced.
type KafkaFacts struct {
	ClusterID string
	Record    *PositionRecord      // the newest, proved complete; nil when there is none
	Pins      []TopicPin           // the newest pins
	Topics    map[Topic]TopicFacts // every pinned topic that exists now
}

// PinnedTopics are the facts of topics that need no further look-up, with the
// partition count that was pinned: partitions added later stay unused.
func PinnedTopics(topics map[Topic]TopicFacts, pins []TopicPin) map[Topic]TopicFacts {
	pinned := make(map[Topic]TopicFacts, len(pins))
	for _, pin := range pins {
		if facts, ok := topics[pin.Topic]; ok {
			facts.TopicPin = pin
			pinned[pin.Topic] = facts
		}
	}
	return pinned
}

// SlotStats is what monitoring reads about the slot from any replica, active
// or not, in one cheap query.
type SlotStats struct {
	CurrentLSN   LSN        // pg_current_wal_lsn()
	Slot         *SlotFacts // nil: it does not exist
	SafeWALBytes *int64     // safe_wal_size: left until invalidation; nil where max_slot_wal_keep_size is unlimited
	// CatalogXMinAge is age(catalog_xmin): how many transactions ago the oldest one
	// began whose catalog rows VACUUM must keep for the slot; nil where that is null.
	CatalogXMinAge *int64
}
