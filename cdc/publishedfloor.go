package cdc

// XID8 is a Postgres transaction id of 64 bits, which never wraps. (PostgreSQL
// docs, "Object Identifier Types", xid8.)
type XID8 uint64

// PublishedFloor says which rows need no comparison with Kafka: every row that a
// transaction with From <= xid < XID inserted is decided.
//
// Invariant: LSN <= the commit LSN of the record's last row. So it holds in every
// history of the database in which that row was committed, and in such a one
// only: elsewhere ids below XID may be given out again.
type PublishedFloor struct {
	From XID8 `json:"from"`
	XID  XID8 `json:"xid"`
	// LSN is a place in the WAL before which every transaction below XID had ended.
	LSN LSN `json:"lsn"`
}

// FloorLook is what one statement on the primary tells: the transactions below
// XID had ended when LSN, the end of the WAL, was read. A transaction that is
// open or prepared holds XID back; one that was rolled back has no row.
type FloorLook struct {
	XID XID8 // pg_snapshot_xmin(pg_current_snapshot())
	LSN LSN  // pg_current_wal_insert_lsn(), read after the snapshot was taken
	// From is an id that was given out after this life had read its facts: whoever
	// has it or a later one commits behind everything that was decided before this
	// life. 0: none could be had.
	From XID8
}

// floors finds the looks that records prove. Only two looks wait: the first, so
// that a relay that lags proves one at last, and the newest.
type floors struct {
	from          XID8 // where a floor begins that has none before it; 0: not known
	first, newest FloorLook
}

// note takes a look of this life.
func (f *floors) note(look FloorLook) {
	if f.from == 0 {
		f.from = look.From
	}
	if f.first.XID == 0 {
		f.first = look
		return
	}
	f.newest = look
}

// proved is the floor of a record with this last row; before is that of the
// record before it. Rows are decided in the order of their commits, so once the
// last of them was committed at the look's LSN or behind it, nothing of the
// transactions that had ended then is owed.
func (f *floors) proved(before *PublishedFloor, last *LastRow) *PublishedFloor {
	if last == nil || last.Serial == 0 || f.first.XID == 0 || last.CommitLSN < f.first.LSN {
		return before
	}
	look := f.first
	f.first, f.newest = f.newest, FloorLook{}
	if f.first.XID != 0 && last.CommitLSN >= f.first.LSN {
		look, f.first = f.first, FloorLook{}
	}
	from := f.from
	if before != nil {
		from = before.From
	}
	switch {
	case before == nil && from == 0, look.XID <= from:
		return before
	case before != nil && look.XID <= before.XID:
		return before
	}
	return &PublishedFloor{From: from, XID: look.XID, LSN: look.LSN}
}

// StandingFloor is the record's floor, where it is still true of the server under
// the condition that its snapshot has the record's last row, inserted by the
// recorded transaction; else nil.
func (r *PositionRecord) StandingFloor(source SourceFacts) *PublishedFloor {
	floor, last := r.PublishedFloor, r.LastRow
	if floor == nil || last == nil || last.Serial == 0 || last.CommitLSN < floor.LSN || r.SystemID != source.SystemID {
		return nil
	}
	if len(source.Lineage) == 0 { // facts without the history of timelines
		if r.Timeline() != source.Timeline {
			return nil
		}
		return floor
	}
	if _, _, problem := compareLineage(r, source); problem != nil {
		return nil
	}
	return floor
}

// keepsFloor says whether database, cluster and topics are those of which the
// floor was proved. A topic without an id may have been made again.
func keepsFloor(record *PositionRecord, kafka KafkaFacts, source SourceFacts) bool {
	if record.SystemID != source.SystemID || record.KafkaClusterID != kafka.ClusterID {
		return false
	}
	for _, pin := range kafka.Pins {
		if now := kafka.Topics[pin.Topic]; now.ID == "" || now.ID != pin.ID {
			return false
		}
	}
	return true
}
