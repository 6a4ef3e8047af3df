package postgres

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// identity says which history a server has.
type identity struct {
	systemID string
	timeline cdc.Timeline
}

// identify runs IDENTIFY_SYSTEM.
func (c *connection) identify(ctx context.Context) (identity, error) {
	id, err := pglogrepl.IdentifySystem(ctx, c.pg)
	if err != nil {
		return identity{}, c.queryError(ctx, "identify the Postgres system", err)
	}
	return identity{systemID: id.SystemID, timeline: cdc.Timeline(id.Timeline)}, nil
}

// lineage returns the timeline's history. The first timeline has no history
// file, and the server answers TIMELINE_HISTORY 1 with an error.
func (c *connection) lineage(ctx context.Context, timeline cdc.Timeline) (cdc.Lineage, error) {
	if timeline <= 1 {
		return cdc.Lineage{{Timeline: timeline}}, nil
	}
	history, err := pglogrepl.TimelineHistory(ctx, c.pg, int32(timeline))
	if err != nil {
		return nil, c.queryError(ctx, fmt.Sprintf("read the history of timeline %d", timeline), err)
	}
	return parseLineage(history.Content, timeline)
}

// parseLineage reads a timeline history file: one line per ancestor, "timeline
// switch-point reason"; empty lines and comments may stand in between.
// (PostgreSQL source, readTimeLineHistory.)
func parseLineage(content []byte, timeline cdc.Timeline) (cdc.Lineage, error) {
	var lineage cdc.Lineage
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("history of timeline %d: line %q has no switch point", timeline, lines.Text())
		}
		ancestor, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d: line %q: %w", timeline, lines.Text(), err)
		}
		point, err := cdc.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d: %w", timeline, err)
		}
		if n := len(lineage); n > 0 && (lineage[n-1].Timeline >= cdc.Timeline(ancestor) || lineage[n-1].Switch > point) {
			return nil, fmt.Errorf("history of timeline %d does not rise at line %q", timeline, lines.Text())
		}
		lineage = append(lineage, cdc.TimelineSpan{Timeline: cdc.Timeline(ancestor), Switch: point})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("history of timeline %d: %w", timeline, err)
	}
	if n := len(lineage); n == 0 || lineage[n-1].Timeline >= timeline {
		return nil, fmt.Errorf("history of timeline %d names no ancestor below it", timeline)
	}
	return append(lineage, cdc.TimelineSpan{Timeline: timeline}), nil
}
