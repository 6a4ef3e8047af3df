package metrics

import "github.com/prometheus/client_golang/prometheus"

// counted are the metrics that the Observer's methods move.
type counted struct {
	transactions, rows, skipped, ignored, rowBytes *prometheus.CounterVec
	parked                                         *prometheus.CounterVec

	batches        *prometheus.CounterVec
	batchRows      *prometheus.HistogramVec
	commitDuration *prometheus.HistogramVec
	records        *prometheus.CounterVec
	recordBytes    *prometheus.CounterVec
	latency        *prometheus.HistogramVec

	stateChanges, restarts, failures *prometheus.CounterVec

	slotQueries, slotQueryErrors *prometheus.CounterVec
}

// scraped are the metrics that are made from the status, and from the slot.
type scraped struct {
	build *prometheus.Desc

	state, halted, active    *prometheus.Desc
	delivery                 *prometheus.Desc
	lag, owedRows, owedBytes *prometheus.Desc
	unrecorded, unconfirmed  *prometheus.Desc
	lastRecorded, lastStep   *prometheus.Desc
	clockOffset              *prometheus.Desc

	slotExists, slotActive, slotWALStatus *prometheus.Desc
	slotLag, slotRetained, slotSafe       *prometheus.Desc
	slotXMinAge                           *prometheus.Desc
	slotQueryDuration                     *prometheus.Desc
}

// Buckets include the bounds of objectives: 0.1, 0.5, 1, 5 and 10 s.
func latencyBuckets() []float64 {
	return []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300}
}

func commitBuckets() []float64 {
	return []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30}
}

func rowBuckets() []float64 {
	return []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000}
}

// newBuild comes first and carries no slot.
func newBuild(c *catalog) *prometheus.Desc {
	return c.gauge("build_info", "Always 1; the labels say which build runs.", "version", "revision", "goversion")
}

func newCounted(c *catalog) counted {
	return counted{
		transactions: c.counter("transactions_total", "Database transactions received with at least one outbox row."),
		rows:         c.counter("rows_received_total", "Outbox rows received from the slot, skipped ones and rows received again after a restart included."),
		skipped:      c.counter("rows_skipped_total", "Rows received again that the recorded position already covers."),
		parked:       c.counter("rows_parked_total", "Rows that could not become a record of their own topic and were recorded in the parked topic."),
		ignored:      c.counter("messages_ignored_total", "Updates, deletes, truncates and other messages received that are no events."),
		rowBytes:     c.counter("row_bytes_received_total", "Bytes of the column values of received rows."),

		batches:        c.counter("batches_total", "Kafka transactions committed, those that only record idle progress included."),
		batchRows:      c.histogram("batch_rows", "Rows in one committed Kafka transaction; idle ones are left out.", rowBuckets()),
		commitDuration: c.histogram("kafka_transaction_duration_seconds", "Time from handing a batch over until its Kafka transaction was committed.", commitBuckets()),
		records:        c.counter("records_recorded_total", "Records in committed Kafka transactions.", "topic"),
		recordBytes:    c.counter("record_bytes_recorded_total", "Bytes of keys, values and headers of records in committed Kafka transactions, before compression.", "topic"),
		latency:        c.histogram("delivery_latency_seconds", "Time from a row's database commit until its Kafka transaction was committed, on the server's clock. Silent while nothing is recorded: alert on replication_lag_seconds.", latencyBuckets(), "topic"),

		stateChanges: c.counter("state_changes_total", "Times that the relay entered a state from another one.", "state"),
		restarts:     c.counter("restarts_total", "Failures after which both sides were started again.", "reason"),
		failures:     c.counter("failures_total", "Failures that ended the connections to both sides: those that are retried and those that halt.", "reason"),

		slotQueries:     c.counter("slot_queries_total", "Times that the slot was looked up for these metrics."),
		slotQueryErrors: c.counter("slot_query_errors_total", "Times that looking the slot up failed; slot metrics are then absent."),
	}
}

func newScraped(c *catalog) scraped {
	return scraped{
		state:        c.gauge("state", "1 for the state that the relay is in, 0 for every other.", "state"),
		delivery:     c.gauge("delivery", "1 for the mode of delivery, exactly-once or at-least-once.", "mode"),
		halted:       c.gauge("halted", "1 for the reason for which the relay waits for a person, 0 for every other.", "reason"),
		active:       c.gauge("active", "1 while this replica holds the slot and streams."),
		lag:          c.gauge("replication_lag_seconds", "Age of the oldest row that is committed and not recorded in Kafka, on the server's clock; 0 when nothing is owed, absent while it is not known: in a standby, and in a process that never caught up and does not stream."),
		owedRows:     c.gauge("owed_rows", "Rows received and not recorded."),
		owedBytes:    c.gauge("owed_bytes", "Bytes of the records made of owed rows."),
		unrecorded:   c.gauge("unrecorded_wal_bytes", "Received LSN minus recorded LSN; absent while not active."),
		unconfirmed:  c.gauge("unconfirmed_wal_bytes", "Recorded LSN minus confirmed LSN; absent while not active, and before the first acknowledgement."),
		lastRecorded: c.gauge("last_recorded_timestamp_seconds", "When this process last committed a Kafka transaction; absent before the first."),
		lastStep:     c.gauge("last_step_timestamp_seconds", "When the relay's loop last took a step."),
		clockOffset:  c.gauge("server_clock_offset_seconds", "Postgres server's clock minus this host's clock."),

		slotExists:        c.gauge("slot_exists", "1 when the slot exists."),
		slotActive:        c.gauge("slot_active", "1 while any process streams from the slot; absent when it does not exist."),
		slotWALStatus:     c.gauge("slot_wal_status", "1 for the wal_status of the slot, 0 for every other.", "status"),
		slotLag:           c.gauge("slot_lag_bytes", "Current WAL LSN minus the slot's confirmed_flush_lsn: WAL not yet acknowledged, that of other tables and databases included."),
		slotRetained:      c.gauge("slot_retained_wal_bytes", "Current WAL LSN minus the slot's restart_lsn: WAL that the slot keeps on the server's disk."),
		slotSafe:          c.gauge("slot_safe_wal_bytes", "WAL that may still be written before the slot is in danger of being lost; absent where max_slot_wal_keep_size is unlimited."),
		slotXMinAge:       c.gauge("slot_catalog_xmin_age", "Transactions since the slot's catalog_xmin: VACUUM keeps catalog rows for it, and at 2 billion the server stops taking writes."),
		slotQueryDuration: c.gauge("slot_query_duration_seconds", "How long the last look at the slot took."),
	}
}
