package main

// relayName is the reader that the others are compared with.
const relayName = "relay"

// drainSummary is one reader of one backlog over all runs.
type drainSummary struct {
	Backlog       string `json:"backlog"`
	Reader        string `json:"reader"`
	RowsPerSecond spread `json:"rows_per_second"`
	ReaderCPU     spread `json:"reader_cpu_s_per_million"`
	WalsenderCPU  spread `json:"walsender_cpu_s_per_million"`
	KafkaCPU      spread `json:"kafka_cpu_s_per_million"`
	BytesPerRow   spread `json:"kafka_bytes_per_row"`
	PeakRSSMiB    spread `json:"peak_rss_mib"`
	IdleCores     spread `json:"idle_cores"`
	// Ratios of the relay to this reader in the same run.
	SpeedRatio spread `json:"relay_rows_per_second_ratio"`
	CPURatio   spread `json:"relay_cpu_ratio"`
}

func summarizeDrains(all []drain) (summaries []drainSummary) {
	type key struct{ backlog, reader string }
	keys, byKey := grouped(all, func(d drain) key { return key{d.Backlog, d.Reader} })
	for _, k := range keys {
		runs := byKey[k]
		summary := drainSummary{
			Backlog: k.backlog, Reader: k.reader,
			RowsPerSecond: spreadOf(runs, func(d drain) float64 { return d.RowsPerSecond }),
			ReaderCPU:     spreadOf(runs, func(d drain) float64 { return d.ReaderCPU }),
			WalsenderCPU:  spreadOf(runs, func(d drain) float64 { return d.WalsenderCPU }),
			KafkaCPU:      spreadOf(runs, func(d drain) float64 { return d.KafkaCPU }),
			BytesPerRow:   spreadOf(runs, func(d drain) float64 { return d.BytesPerRow }),
			PeakRSSMiB:    spreadOf(runs, func(d drain) float64 { return d.PeakRSSMiB }),
			IdleCores:     spreadOf(runs, func(d drain) float64 { return d.IdleCores }),
		}
		relay := byKey[key{k.backlog, relayName}]
		summary.SpeedRatio = ratios(relay, runs, func(d drain) (int, float64) { return d.Run, d.RowsPerSecond })
		summary.CPURatio = ratios(relay, runs, func(d drain) (int, float64) { return d.Run, d.ReaderCPU })
		summaries = append(summaries, summary)
	}
	return summaries
}

// latencySummary is one reader at one rate over all runs.
type latencySummary struct {
	Rate      int    `json:"rate_per_second"`
	Reader    string `json:"reader"`
	Committed spread `json:"committed_per_second"`
	P50       spread `json:"p50_ms"`
	P99       spread `json:"p99_ms"`
	Max       spread `json:"max_ms"`
	P50Ratio  spread `json:"relay_p50_ratio"`
	P99Ratio  spread `json:"relay_p99_ratio"`
}

func summarizeLatencies(all []latency) (summaries []latencySummary) {
	type key struct {
		rate   int
		reader string
	}
	keys, byKey := grouped(all, func(l latency) key { return key{l.Rate, l.Reader} })
	for _, k := range keys {
		runs, relay := byKey[k], byKey[key{k.rate, relayName}]
		summaries = append(summaries, latencySummary{
			Rate: k.rate, Reader: k.reader,
			Committed: spreadOf(runs, func(l latency) float64 { return l.Committed }),
			P50:       spreadOf(runs, func(l latency) float64 { return l.P50Milliseconds }),
			P99:       spreadOf(runs, func(l latency) float64 { return l.P99Milliseconds }),
			Max:       spreadOf(runs, func(l latency) float64 { return l.MaxMilliseconds }),
			P50Ratio:  ratios(relay, runs, func(l latency) (int, float64) { return l.Run, l.P50Milliseconds }),
			P99Ratio:  ratios(relay, runs, func(l latency) (int, float64) { return l.Run, l.P99Milliseconds }),
		})
	}
	return summaries
}

// idleSummary is one idle reader over all runs.
type idleSummary struct {
	Reader    string `json:"reader"`
	CPU       spread `json:"cpu_percent_of_a_core"`
	Walsender spread `json:"walsender_cpu_percent_of_a_core"`
}

func summarizeIdle(all []idle) (summaries []idleSummary) {
	keys, byKey := grouped(all, func(i idle) string { return i.Reader })
	for _, k := range keys {
		summaries = append(summaries, idleSummary{
			Reader:    k,
			CPU:       spreadOf(byKey[k], func(i idle) float64 { return i.CPUPercent }),
			Walsender: spreadOf(byKey[k], func(i idle) float64 { return i.WalsenderShare }),
		})
	}
	return summaries
}

// ratios divides the relay's figure by the other's, run by run: what the
// machine does meanwhile concerns both.
func ratios[E any](relay, other []E, figure func(E) (run int, value float64)) spread {
	ofRelay := map[int]float64{}
	for _, r := range relay {
		run, value := figure(r)
		ofRelay[run] = value
	}
	var all []float64
	for _, o := range other {
		run, value := figure(o)
		if ofRelay[run] > 0 && value > 0 {
			all = append(all, ofRelay[run]/value)
		}
	}
	return spreadOf(all, func(v float64) float64 { return v })
}
