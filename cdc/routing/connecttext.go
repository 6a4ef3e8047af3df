package routing

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// isConnectString says whether Debezium makes a Connect string of the type.
// Types that users define count: they are enums as a rule.
func isConnectString(typeOID uint32) bool {
	switch typeOID {
	case oidText, oidVarchar, oidBpchar, oidUUID, oidJSON, oidJSONB, oidXML:
		return true
	default:
		return typeOID >= oidFirstUser
	}
}

// isConnectType says whether connectText knows the type.
func isConnectType(typeOID uint32) bool {
	switch typeOID {
	case oidBool, oidBytea, oidInt2, oidInt4, oidInt8, oidDate, oidTimestamp, oidTimestamptz:
		return true
	default:
		return isConnectString(typeOID)
	}
}

// connectValue returns a column as key or value of a record: a bytea as its
// bytes (Debezium's BinaryDataConverter), all else as connectText does
// (StringConverter). Nil is NULL.
func (p *plan) connectValue(row *cdc.Row, column int) ([]byte, error) {
	if p.typeOf(column) == oidBytea {
		return p.rawValue(row, column)
	}
	return p.connectText(row, column)
}

// connectText returns the text that Connect's SimpleHeaderConverter makes of
// the Connect value that Debezium's Postgres connector makes of the column.
// Nil is NULL.
func (p *plan) connectText(row *cdc.Row, column int) ([]byte, error) {
	value := row.Values[column]
	if value == nil {
		return nil, nil
	}
	switch typeOID := p.typeOf(column); typeOID {
	case oidBool:
		if string(value) == "t" {
			return []byte("true"), nil
		}
		return []byte("false"), nil
	case oidBytea:
		raw, err := p.rawValue(row, column)
		if err != nil {
			return nil, err
		}
		return base64.StdEncoding.AppendEncode([]byte{}, raw), nil
	case oidDate, oidTimestamp, oidTimestamptz:
		t, err := parseColumnTime(value)
		if err != nil {
			return nil, badRow(row, fmt.Sprintf("has in column %q %v", p.columnName(column), err), "write a time, or place another column under routing.debezium")
		}
		return connectTime(t, typeOID, p.relation.Columns[column].TypeModifier), nil
	default:
		return value, nil
	}
}

// connectTime prints days for a date, milliseconds or microseconds for a
// timestamp depending on its precision, and ISO 8601 for a timestamptz.
func connectTime(t time.Time, typeOID uint32, typeModifier int32) []byte {
	switch {
	case typeOID == oidTimestamptz:
		return t.AppendFormat(nil, time.RFC3339Nano)
	case typeOID == oidDate:
		const secondsPerDay = 86400
		days := t.Unix() / secondsPerDay // exact: the time is midnight UTC
		return strconv.AppendInt(nil, days, 10)
	case typeModifier >= 0 && typeModifier <= 3:
		return strconv.AppendInt(nil, t.UnixMilli(), 10)
	default:
		return strconv.AppendInt(nil, t.UnixMicro(), 10)
	}
}
